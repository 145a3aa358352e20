"""``redis:``, a log in a Redis (6.2 or later) or Valkey, for many machines.

One Redis Stream is the log.  One Lua script appends and trims; it chooses the entry ids, which are
our own, so that they have no gaps.  Beside the stream are a hash with the epoch, and sorted sets
with the seq up to which each channel was trimmed and with the last seq of each past epoch.

A process has one connection that reads the tail, however many viewers it has, and a few that the
other calls take turns with (`ssekit.brokers.redis.connections`).  A command whose answer was lost
is never sent again: it may have been carried out.  What Redis forgets after it has answered, as it
has no append-only file or one that is a second behind, no broker can bring back.  But an epoch ends
with each run of the server, so whoever had seen such an event is told that history is lost.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from ssekit.brokers.codec import as_stored, id_of, pack, parse_id, seq_in, unpack
from ssekit.brokers.contract import (
    BATCH,
    CHANNELS_REMEMBERED,
    EPOCHS_REMEMBERED,
    Broker,
    Entry,
    HistoryLost,
)
from ssekit.brokers.redis.connections import RUN, Connections
from ssekit.errors import BrokerUnavailable, HubClosed
from ssekit.host.forks import on_fork
from ssekit.host.wakeup import Wakeups
from ssekit.wire import Event

_LOOK = 5.0  # seconds after which the tail asks whether the log is still the same
_SCAN = 1000  # entries that one read looks at

# Opens the log, and makes a new one where there is none or only a part of one is left.  Where an
# event is about to be appended in another run of the server, an epoch begins.
_OPEN = """
local stream, log, trimmed, past, run = KEYS[1], KEYS[2], KEYS[3], KEYS[4], ARGV[1]
local state = redis.call('HMGET', log, 'epoch', 'seq', 'run')
local now = redis.call('TIME')
now = string.format('%d%03d', now[1], math.floor(now[2] / 1000))
local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
if last and last[2][1] ~= 'channel' then
    return redis.error_reply('ERR ' .. stream .. ' is a stream of something else')
end
local epoch, seq = state[1], tonumber(state[2])
local found = last and last[1] or ''
local expected = epoch and seq > 0 and epoch .. '-' .. state[2] or ''
if not epoch or found ~= expected
   or (seq > redis.call('XLEN', stream) and redis.call('EXISTS', trimmed) == 0) then
    epoch, seq = now, 0
    redis.call('DEL', stream, log, trimmed, past)
    redis.call('HSET', log, 'epoch', epoch, 'seq', 0, 'floor', 0, 'run', run)
elseif ARGV[2] and run ~= '' and state[3] ~= run then
    redis.call('ZADD', past, seq, epoch)
    redis.call('ZREMRANGEBYRANK', past, 0, -1 - ARGV[6])
    epoch = string.format('%.0f', math.max(now, epoch + 1))
    redis.call('HSET', log, 'epoch', epoch, 'run', run)
end
"""

_TIP = _OPEN + "return epoch .. '-' .. string.format('%.0f', seq)"

_APPEND = (
    _OPEN
    + """
local channel, packed = ARGV[2], ARGV[3]
local history, remembered = tonumber(ARGV[4]), tonumber(ARGV[5])
local over = math.min(redis.call('XLEN', stream) + 1 - history, 1000)
if over > 0 then
    for _, entry in ipairs(redis.call('XRANGE', stream, '-', '+', 'COUNT', over)) do
        redis.call('ZADD', trimmed, string.match(entry[1], '%d+$'), entry[2][2])
    end
    redis.call('XTRIM', stream, 'MAXLEN', redis.call('XLEN', stream) - over)
    local many = redis.call('ZCARD', trimmed) - remembered
    if many > 0 then
        local popped = redis.call('ZPOPMIN', trimmed, many)
        redis.call('HSET', log, 'floor', popped[#popped])
    end
end
local id = epoch .. '-' .. string.format('%.0f', seq + 1)
redis.call('XADD', stream, id, 'channel', channel, 'packed', packed)
redis.call('HSET', log, 'seq', string.format('%.0f', seq + 1))
return id
"""
)

# One look at everything, so that nothing is trimmed in between.
_READ = """
local stream, log, trimmed, past = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local state = redis.call('HMGET', log, 'epoch', 'seq', 'floor')
local reached = 0
for n = 4, #ARGV do
    local seq = redis.call('ZSCORE', trimmed, ARGV[n]) or state[3] or 0
    reached = math.max(reached, tonumber(seq))
end
local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
local entries = redis.call('XRANGE', stream, ARGV[1], '+', 'COUNT', ARGV[2])
return {
    state[1], state[2], last and last[1] or false, string.format('%.0f', reached),
    redis.call('ZSCORE', past, ARGV[3]), entries
}
"""


class RedisBroker(Broker):
    def __init__(self, url: str, stream: str, history: int) -> None:
        self._history = history
        self._closed = False
        self._connections = Connections(url)
        # In a cluster, keys with the same part in braces live on the same server.
        tagged = stream if "{" in stream else f"{{{stream}}}"
        self._keys = (stream, *(f"{tagged}:{name}" for name in ("log", "trimmed", "past")))
        self._wakeups = Wakeups()
        self._behind: str | None = None  # up to where the tail has read, and so knows the log
        on_fork(self)

    @classmethod
    def from_url(cls, url: str, history: int) -> RedisBroker:
        base, _, query = url.partition("?")
        path = urlsplit(base).path
        if re.match("rediss?://", base) and not re.fullmatch("/?|/[0-9]+", path):
            # redis-py would take the database 0.  Not the URL whole: it may have a password.
            raise ValueError(f"{path!r} is no database: write its number, as in redis://host/0")
        options = dict(parse_qsl(query, keep_blank_values=True))
        stream = options.pop("stream", "ssekit")
        if not stream:
            raise ValueError("the option stream= of the URL has no name")
        return cls(f"{base}?{urlencode(options)}", stream, history)

    def after_fork(self) -> None:
        self._wakeups.abandon()
        self._connections.abandon()
        self._behind = None

    def append(self, channel: str, event: Event) -> Event:
        self._check_open()
        event = as_stored(event)
        packed = pack(event)
        bounds = (self._history, CHANNELS_REMEMBERED, EPOCHS_REMEMBERED)
        entry_id = self._script(_APPEND, RUN, channel, packed, *bounds, writes=True)
        return unpack(channel, entry_id.decode(), packed).event

    def read(self, channels: Collection[str], after: str, limit: int) -> tuple[list[Entry], str]:
        self._check_open()
        here, rows = self._look(after, _SCAN, channels)
        entries: list[Entry] = []
        for row in rows:
            entry = _entry(row)
            if entry.channel in channels:
                entries.append(entry)
                if len(entries) == limit:
                    return entries, entry.id
        return entries, rows[-1][0].decode() if len(rows) == _SCAN else here

    def _look(self, after: str, most: int, channels: Collection[str] = ()) -> tuple[str, list[Any]]:
        """Check a cursor; return the log's end, and raw entries behind the cursor."""
        theirs, behind = parse_id(after)
        found = self._script(_READ, id_of(theirs, behind + 1), most, theirs, *channels)
        if found[0] is None:
            raise HistoryLost("there is no log yet, or no more")
        epoch, tip, reached = int(found[0]), int(found[1]), int(found[3])
        last, past, rows = found[2], found[4], found[5]
        seq = seq_in(after, epoch, tip, {} if past is None else {theirs: int(past)})
        if seq < reached or (
            # The stream was deleted under the log: the next append begins another one.
            tip > 0 and last != id_of(epoch, tip).encode()
        ):
            raise HistoryLost(f"the log was trimmed behind {after}")
        return id_of(epoch, tip), rows

    def follow(self, after: str, timeout: float) -> tuple[list[Entry], str]:
        self._check_open()
        deadline = time.monotonic() + timeout
        known = after == self._behind
        self._behind = None  # until this has gone well: after a failure it may be another log
        with self._wakeups.waiting() as wakeup, self._connections.reader() as reader:
            while True:
                self._check_open()
                if not known:
                    self._look(after, 1)
                left = min(_LOOK, deadline - time.monotonic())
                if left <= 0:
                    return [], after
                milliseconds = max(1, int(left * 1000))
                command = ("XREAD", "COUNT", BATCH, "BLOCK", milliseconds)
                found = reader.ask((*command, "STREAMS", self._keys[0], after), left, wakeup)
                if found:
                    break
                known = False  # nothing came: have a look whether it is still the same log
        entries = [_entry(row) for row in found[0][1]]
        (epoch, seq), first = parse_id(after), parse_id(entries[0].id)
        if first[0] != epoch:
            self._look(after, 1)  # the next epoch of this log, or another log
        if first[1] != seq + 1:
            raise HistoryLost(f"the log was trimmed behind {after}")
        self._behind = entries[-1].id
        return entries, entries[-1].id

    def tip(self) -> str:
        self._check_open()
        tip: bytes = self._script(_TIP, RUN)
        return tip.decode()

    def close(self) -> None:
        self._closed = True
        self._wakeups.close()
        self._connections.close()

    def _script(self, script: str, *arguments: object, writes: bool = False) -> Any:
        return self._connections.ask(
            ("EVAL", script, len(self._keys), *self._keys, *arguments), writes=writes
        )

    def _check_open(self) -> None:
        if self._closed:
            raise HubClosed("the hub is closed")


def _entry(row: Any) -> Entry:
    entry_id, fields = row
    if len(fields) != 4 or fields[0] != b"channel" or fields[2] != b"packed":
        raise BrokerUnavailable(f"entry {entry_id!r} of the stream was not written by ssekit")
    return unpack(fields[1].decode(), entry_id.decode(), fields[3].decode())
