"""``redis:``, a log in a Redis (6.2 or later) or Valkey, for many machines.

A stream has the newest entries of all channels, for those who follow.  Beside it is what each
channel keeps, in a fixed number of keys (`lua/keys.lua` lists them), so that one publish costs the
same however many channels there are.  Every call is one Lua script; the script chooses the ids,
which are our own, so that they have no gaps.

A command whose answer was lost is never sent again: it may have been carried out.  What Redis
forgets after it has answered, as it has no append-only file or one that is a second behind, no
broker can bring back.  But an epoch ends with each run of the server, so a client that has seen
such an event is told that history is lost.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from ssekit.brokers import contract
from ssekit.brokers.codec import parse_id
from ssekit.brokers.contract import (
    Broker,
    Entry,
    Held,
    HistoryLost,
    LeaseEnded,
    Opening,
    Retention,
    Status,
    bounded,
)
from ssekit.brokers.redis.connections import Connections
from ssekit.brokers.redis.reading import Reading
from ssekit.brokers.redis.records import (
    END,
    EVENT,
    KEYED,
    PASSING,
    REMOVAL,
    entry_in_stream,
    pack,
)
from ssekit.brokers.redis.scripts import Scripts
from ssekit.errors import ChannelBusy, ChannelFinished, HubClosed, InvalidEvent
from ssekit.host.forks import on_fork
from ssekit.host.wakeup import Wakeups

_CHECK_EVERY = 5.0  # seconds after which one who follows asks whether the log is still the same
_FIRST = 20  # entries that are waited for at once, as their size is unknown
_AT_ONCE = 500  # members that one script has join or leave


class RedisBroker(Broker):
    def __init__(self, url: str, stream: str, retention: Retention) -> None:
        self._closed = False
        self._connections = Connections(url)
        self._scripts = Scripts(self._connections, stream, retention)
        self._reading = Reading(self._scripts)
        self._wakeups = Wakeups()
        self._known: str | None = None  # up to where `follow` has read, and so knows the log
        on_fork(self)

    @classmethod
    def from_url(cls, url: str, retention: Retention) -> RedisBroker:
        base, _, query = url.partition("?")
        path = urlsplit(base).path
        if re.match("rediss?://", base) and not re.fullmatch("/?|/[0-9]+", path):
            # redis-py would take the database 0.  Not the URL whole: it may have a password.
            raise ValueError(f"{path!r} is no database: write its number, as in redis://host/0")
        options = dict(parse_qsl(query, keep_blank_values=True))
        stream = options.pop("stream", "ssekit")
        if not stream:
            raise ValueError("the option stream= of the URL has no name")
        return cls(f"{base}?{urlencode(options)}", stream, retention)

    def after_fork(self) -> None:
        self._wakeups.abandon()
        self._connections.abandon()
        self._scripts.abandon()
        self._known = None

    # -- writing

    def append(
        self,
        channel: str,
        body: bytes,
        *,
        key: str | None = None,
        passing: bool = False,
        holder: str | None = None,
    ) -> Entry:
        kind = PASSING if passing else EVENT if key is None else KEYED
        packed = pack(kind, channel, key, body)
        answer = self._write("append", channel, packed, kind, key or "", holder or "")
        if answer[0] == b"full":
            raise InvalidEvent(
                f"the channel {channel!r} has {answer[1].decode()} keys already; remove some, or"
                " let the log have more with Hub(max_keys=...)"
            )
        _check_finished(channel, answer)
        return _stored(answer, channel, body, None if passing else key, passing=passing)

    def remove(self, channel: str, key: str, body: bytes) -> Entry | None:
        packed = pack(REMOVAL, channel, key, body)
        answer = self._write("remove", channel, key, packed)
        _check_finished(channel, answer)
        return None if answer[0] == b"nothing" else _stored(answer, channel, body, key)

    def finish(
        self, channel: str, body: bytes, reason: str, *, holder: str | None = None
    ) -> Entry | None:
        packed = pack(END, channel, None, body)
        answer = self._write("finish", channel, packed, reason, holder or "")
        return None if answer[0] == b"nothing" else _stored(answer, channel, body, None)

    def reopen(self, channel: str) -> bool:
        return bool(self._write("reopen", channel)[0] == b"reopened")

    # -- reading

    def read(self, channels: Collection[str], after: str, limit: int) -> tuple[list[Entry], str]:
        self._check_open()
        records, cursor = self._reading.read(channels, after, limit)
        return [record.entry for record in records], cursor

    def follow(self, after: str, timeout: float) -> tuple[list[Entry], str]:
        self._check_open()
        deadline = time.monotonic() + timeout
        known = after == self._known
        self._known = None  # until this has gone well: after a failure it may be another log
        with self._wakeups.waiting() as wakeup, self._connections.follower() as follower:
            if not known:
                self._reading.check(after)
            while True:
                self._check_open()
                remaining = min(_CHECK_EVERY, deadline - time.monotonic())
                found = follower.ask(self._newer(after, remaining), max(remaining, 0), wakeup)
                if found:
                    break
                self._reading.check(after)  # It may be another log by now.
                if time.monotonic() >= deadline:
                    return [], after
        entries = self._followed(after, [entry_in_stream(*row) for row in found[0][1]])
        self._known = entries[-1].id
        return entries, entries[-1].id

    def _newer(self, after: str, seconds: float) -> tuple[object, ...]:
        """Return the command that waits for entries after a cursor."""
        waits = ("BLOCK", max(1, int(seconds * 1000))) if seconds > 0 else ()
        most = min(_FIRST, contract.BATCH)
        return ("XREAD", "COUNT", most, *waits, "STREAMS", self._scripts.keys[0], after)

    def _followed(self, after: str, entries: list[Entry]) -> list[Entry]:
        """Check the first entries after a cursor, and add those that go with them."""
        (epoch, seq), first = parse_id(after), parse_id(entries[0].id)
        if first[0] != epoch:
            self._reading.check(after)  # the next epoch of this log, or another log
        if first[1] != seq + 1:
            raise HistoryLost(f"more than {contract.RECENT} entries have followed {after}")
        more = contract.BATCH - len(entries)
        if len(entries) == _FIRST and more > 0 and len(bounded(entries)) == len(entries):
            found = self._reading.newer(entries[-1].id, more)
            # After a gap, the log was trimmed or replaced meanwhile: the next call finds out.
            if found and parse_id(found[0].id)[1] == parse_id(entries[-1].id)[1] + 1:
                entries += found
        return bounded(entries)

    def recent(self, limit: int) -> tuple[list[Entry], str]:
        self._begin()
        return self._reading.recent(limit)

    def opening(self, channels: Collection[str], replay: int | None) -> Opening:
        self._begin()
        return self._reading.opening(channels, replay)

    def history(self, channels: Collection[str], limit: int, before: str | None) -> list[Entry]:
        self._check_open()
        return self._reading.history(channels, limit, before)

    def ends(self, channels: Collection[str]) -> dict[str, Entry]:
        self._check_open()
        return self._reading.ends(channels)

    def status(self, channel: str) -> Status:
        self._check_open()
        answer = self._scripts.read("status", channel)
        if answer is None:
            return Status("open")
        if answer[0] == b"finished":
            return Status("finished", answer[1].decode())
        return Status("producing" if answer[0] == b"producing" else "open")

    def tip(self) -> str:
        self._begin()
        return self._reading.tip()

    def retention(self) -> Retention:
        self._check_open()
        return self._scripts.retention()

    # -- leases

    def beat(self, holder: str, *, first: bool = False) -> bool:
        return bool(self._write("beat", holder, int(first))[0] == b"renewed")

    def leases(self) -> dict[str, int]:
        self._check_open()
        answer = self._scripts.read("leases")
        found = [] if answer is None else answer[1]
        return {
            holder.decode(): int(beats)
            for holder, beats in zip(found[::2], found[1::2], strict=True)
        }

    def end_lease(self, holder: str, beats: int) -> bool:
        return bool(self._write("end_lease", holder, beats)[0] == b"ended")

    def held(self, holder: str) -> list[Held]:
        self._check_open()
        answer = self._scripts.read("held", holder)
        skipped = len(holder.encode()) + 1
        return [] if answer is None else [_held(member[skipped:]) for member in answer[1]]

    def produce(self, channel: str, holder: str) -> None:
        answer = self._write("produce", channel, holder)
        if answer[0] == b"busy":
            raise ChannelBusy(channel)
        _check_finished(channel, answer)
        _check_live(holder, answer)

    def join(self, members: Mapping[tuple[str, str], bytes], holder: str) -> None:
        self._check_open()
        for some in _some(members):
            _check_live(holder, self._write("join", holder, *_packed(KEYED, some)))

    def leave(self, members: Mapping[tuple[str, str], bytes], holder: str) -> None:
        self._check_open()
        for some in _some(members):
            self._write("leave", holder, *_packed(REMOVAL, some))

    def close(self) -> None:
        self._closed = True
        self._wakeups.close()
        self._connections.close()

    def _write(self, command: str, *arguments: object) -> list[Any]:
        self._check_open()
        return self._scripts.write(command, *arguments)

    def _begin(self) -> None:
        self._check_open()
        self._scripts.begin()

    def _check_open(self) -> None:
        if self._closed:
            raise HubClosed("the hub is closed")


def _stored(
    answer: list[Any], channel: str, body: bytes, key: str | None, *, passing: bool = False
) -> Entry:
    _, entry_id, milliseconds = answer
    return Entry(entry_id.decode(), channel, body, key, passing, int(milliseconds) / 1000)


def _check_finished(channel: str, answer: list[Any]) -> None:
    if answer[0] == b"finished":
        raise ChannelFinished(channel, answer[1].decode())
    if answer[0] == b"taken":
        raise ChannelFinished(channel, None)


def _check_live(holder: str, answer: list[Any]) -> None:
    if answer[0] == b"dead":
        raise LeaseEnded(f"the lease {holder} was ended")


def _held(text: bytes) -> Held:
    """Return what a lease holds from ``pCHANNEL`` or ``mLENGTH:CHANNELMEMBER``."""
    if text[:1] == b"p":
        return Held(text[1:].decode())
    length, _, rest = text[1:].partition(b":")
    return Held(rest[: int(length)].decode(), rest[int(length) :].decode())


Members = list[tuple[tuple[str, str], bytes]]


def _some(members: Mapping[tuple[str, str], bytes]) -> Iterator[Members]:
    """Yield members, as many as one script is to write."""
    remaining = iter(members.items())
    while some := list(islice(remaining, _AT_ONCE)):
        yield some


def _packed(kind: str, members: Members) -> Iterator[str | bytes]:
    for (channel, name), body in members:
        yield channel
        yield name
        yield pack(kind, channel, name, body)
