"""The log of a ``memory:`` broker: what the contract says, in lists and dictionaries.

One call at a time: `ssekit.brokers.memory.broker` knows threads, forks and waiting, this module
knows none of them.  An append costs the same however long the log is and however many channels it
has; what has expired is forgotten where it is looked at, and by each append in one more channel.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Collection
from itertools import islice

from ssekit.brokers import contract
from ssekit.brokers.codec import id_of, seq_in
from ssekit.brokers.contract import (
    INTERNAL,
    Entry,
    HistoryLost,
    Opening,
    Retention,
    Status,
    bounded,
)
from ssekit.errors import ChannelBusy, ChannelFinished, InvalidEvent

_Numbered = tuple[int, Entry]  # with its seq


class _Channel:
    def __init__(self, name: str, trimmed: int) -> None:
        self.name = name
        self.trimmed = trimmed  # up to this seq
        self.events: list[_Numbered] = []  # without a key, and removals
        self.keys: dict[str, _Numbered] = {}  # what changed longest ago first
        self.end: _Numbered | None = None
        self.reason: str | None = None
        self.producer: str | None = None
        self.produced = False  # also when its producer has finished, until it is reopened
        self.counted = 0  # events that count towards the capacity
        self.length = 0  # by which it is compared with other channels; 0 if it is not

    def after(self, seq: int, limit: int) -> list[_Numbered]:
        """Return what `read` finds after a seq; of events no more than ``limit``."""
        first = bisect_left(self.events, (seq + 1,))
        found = self.events[first : first + limit]
        for value in reversed(self.keys.values()):
            if value[0] <= seq:
                break
            found.append(value)
        if self.end is not None and self.end[0] > seq:
            found.append(self.end)
        return found

    def last(self, seq: int, limit: int | None) -> list[_Numbered]:
        """Return the last events without a key up to a seq, newest first."""
        events = reversed(self.events[: bisect_left(self.events, (seq + 1,))])
        return list(islice((event for event in events if event[1].key is None), limit))


class MemoryLog:
    def __init__(self, epoch: int, retention: Retention) -> None:
        self._epoch = epoch
        self._retention = retention
        self._tip = 0
        self._time = 0.0
        self._recent: deque[Entry] = deque()
        self._channels: OrderedDict[str, _Channel] = OrderedDict()  # longest not tidied first
        self._forgotten = _Forgotten()
        self._counted = 0  # events of all channels that count towards the capacity
        self._lengths = _Lengths()
        self._finished: OrderedDict[str, None] = OrderedDict()  # produced ones, as they finished

    # -- writing

    def append(
        self, name: str, body: bytes, key: str | None, passing: bool, holder: str | None
    ) -> Entry:
        channel = self._unfinished(name)
        if holder is not None and (channel is None or channel.producer != holder):
            raise ChannelFinished(name, None)
        if passing:
            return self._store(name, body, passing=True)[1]
        if key is None:
            return self._keep(self._store(name, body))
        if channel is not None and key not in channel.keys:
            self._check_keys(channel)
        numbered = self._store(name, body, key)
        channel = self._channel(name)
        channel.keys.pop(key, None)
        channel.keys[key] = numbered
        return numbered[1]

    def remove(self, name: str, key: str, body: bytes) -> Entry | None:
        channel = self._unfinished(name)
        if channel is None or channel.keys.pop(key, None) is None:
            return None
        return self._keep(self._store(name, body, key))

    def finish(self, name: str, body: bytes, reason: str, holder: str | None) -> Entry | None:
        channel = self._look(name)
        if channel is not None and channel.end is not None:
            return None
        if holder is not None and (channel is None or channel.producer != holder):
            return None
        numbered = self._store(name, body)
        channel = self._channel(name)
        channel.end, channel.reason, channel.producer = numbered, reason, None
        if channel.produced:
            self._finished[name] = None
        self._trim(channel)
        return numbered[1]

    def reopen(self, name: str) -> bool:
        channel = self._look(name)
        if channel is None or channel.end is None:
            return False
        channel.end = channel.reason = None
        channel.produced = False
        self._finished.pop(name, None)
        self._trim(channel)
        return True

    def produce(self, name: str, holder: str) -> None:
        channel = self._unfinished(name)
        if channel is not None and channel.producer is not None:
            raise ChannelBusy(name)
        channel = self._channel(name)
        channel.producer, channel.produced = holder, True
        self._count(channel)

    # -- reading

    def read(self, names: Collection[str], after: str, limit: int) -> tuple[list[Entry], str]:
        seq = seq_in(after, self._epoch, self._tip)
        channels = self._look_at(names)
        if self._trimmed(names) > seq:
            raise HistoryLost(f"events after {after} are no longer kept")
        found = sorted(item for channel in channels for item in channel.after(seq, limit))
        entries = bounded(entry for _, entry in found[:limit])
        is_all = len(entries) == len(found) < limit
        return entries, self.tip() if is_all else entries[-1].id

    def follow(self, after: str) -> list[Entry]:
        count = self._tip - seq_in(after, self._epoch, self._tip)
        if count > len(self._recent):
            raise HistoryLost(f"more than {len(self._recent)} entries have followed {after}")
        start = len(self._recent) - count
        return bounded(islice(self._recent, start, start + contract.BATCH))

    def recent(self, limit: int) -> tuple[list[Entry], str]:
        start = max(0, len(self._recent) - limit)
        return list(islice(self._recent, start, None)), self.tip()

    def opening(self, names: Collection[str], replay: int | None) -> Opening:
        channels = self._look_at(names)
        state = sorted(value for channel in channels for value in channel.keys.values())
        return Opening(
            state=[entry for _, entry in state],
            history=self._last(channels, self._tip, replay),
            complete=not self._trimmed(names),
            ends=self.ends(names),
            tip=self.tip(),
        )

    def history(self, names: Collection[str], limit: int, before: str | None) -> list[Entry]:
        last = self._tip if before is None else seq_in(before, self._epoch, self._tip) - 1
        return self._last(self._look_at(names), last, limit)

    def ends(self, names: Collection[str]) -> dict[str, Entry]:
        return {c.name: c.end[1] for c in self._look_at(names) if c.end is not None}

    def status(self, name: str) -> Status:
        channel = self._look(name)
        if channel is not None and channel.end is not None:
            return Status("finished", channel.reason)
        return Status("producing" if channel is not None and channel.producer else "open")

    def tip(self) -> str:
        return id_of(self._epoch, self._tip)

    def producer(self, name: str) -> str | None:
        """Return the lease of the channel's producer, None if it has none."""
        channel = self._channels.get(name)
        return None if channel is None else channel.producer

    def value(self, name: str, key: str) -> bytes | None:
        """Return the body of a key's newest entry, None if there is no such key."""
        channel = self._channels.get(name)
        numbered = None if channel is None else channel.keys.get(key)
        return None if numbered is None else numbered[1].body

    # -- inside

    def _look(self, name: str) -> _Channel | None:
        """Return the channel without what has expired."""
        if name in self._channels:
            self._expire(self._channels[name])
        return self._channels.get(name)

    def _look_at(self, names: Collection[str]) -> list[_Channel]:
        found = (self._look(name) for name in set(names))
        return [channel for channel in found if channel is not None]

    def _unfinished(self, name: str) -> _Channel | None:
        channel = self._look(name)
        if channel is not None and channel.end is not None:
            raise ChannelFinished(name, channel.reason)
        return channel

    def _channel(self, name: str) -> _Channel:
        if name not in self._channels:
            self._channels[name] = _Channel(name, self._forgotten.pop(name))
        return self._channels[name]

    def _trimmed(self, names: Collection[str]) -> int:
        """Return the highest seq up to which one of the channels was trimmed."""
        channels, forgotten = self._channels, self._forgotten
        seqs = (channels[n].trimmed if n in channels else forgotten.get(n) for n in names)
        return max(seqs, default=0)

    def _last(self, channels: list[_Channel], seq: int, limit: int | None) -> list[Entry]:
        found = sorted(event for channel in channels for event in channel.last(seq, limit))
        return [entry for _, entry in (found if limit is None else found[-limit:] if limit else [])]

    def _check_keys(self, channel: _Channel) -> None:
        most = self._retention.max_keys
        if len(channel.keys) >= most and not channel.name.startswith(INTERNAL):
            raise InvalidEvent(
                f"the channel {channel.name!r} has {most} keys already: remove some, or let it"
                " have more with Hub(max_keys=...)"
            )

    def _store(
        self, name: str, body: bytes, key: str | None = None, *, passing: bool = False
    ) -> _Numbered:
        """Make an entry, which those who follow get, whatever else becomes of it."""
        self._now()
        if self._channels:
            oldest = next(iter(self._channels))
            self._channels.move_to_end(oldest)
            self._expire(self._channels[oldest])
        seq = self._tip + 1
        entry = Entry(id_of(self._epoch, seq), name, body, key, passing, self._time)
        self._tip = seq
        self._recent.append(entry)
        while len(self._recent) > contract.RECENT:
            self._recent.popleft()
        return seq, entry

    def _keep(self, numbered: _Numbered) -> Entry:
        channel = self._channel(numbered[1].channel)
        channel.events.append(numbered)
        self._trim(channel)
        return numbered[1]

    def _trim(self, channel: _Channel) -> None:
        """Bound the channel, and then the whole log."""
        history = self._retention.history
        if channel.produced:
            self._cut(channel, contract.MOST_PRODUCED)
        elif len(channel.events) >= 2 * history:
            self._cut(channel, history)
        self._count(channel)
        while self._counted > self._retention.room:
            if self._finished:
                self._cut(self._channels[next(iter(self._finished))], 0)
            else:
                longest = self._channels[self._lengths.longest()]
                self._cut(longest, min(history, len(longest.events) - 1))

    def _cut(self, channel: _Channel, keep: int) -> None:
        """Leave only the newest events of a channel."""
        many = len(channel.events) - keep
        if many > 0:
            channel.trimmed = channel.events[many - 1][0]
            del channel.events[:many]
            self._count(channel)

    def _count(self, channel: _Channel) -> None:
        """Note how many events a channel has now, and forget one that has nothing at all."""
        exempt = channel.producer is not None or channel.name.startswith(INTERNAL)
        counted = 0 if exempt else len(channel.events)
        self._counted += counted - channel.counted
        channel.counted = counted
        length = 0 if channel.produced else counted
        self._lengths.change(channel.name, channel.length, length)
        channel.length = length
        if not channel.events:
            self._finished.pop(channel.name, None)
            if not (channel.keys or channel.end or channel.producer):
                del self._channels[channel.name]
                self._forgotten.add(channel.name, channel.trimmed)

    def _now(self) -> float:
        self._time = max(self._time, time.time())
        return self._time

    def _expire(self, channel: _Channel) -> None:
        """Forget what is too old by now."""
        age, now = self._retention.max_age, self._now()
        kept = contract.INTERNAL_KEPT if channel.name.startswith(INTERNAL) else age
        if kept is not None:
            times = (entry.time for _, entry in channel.events)
            many = next((n for n, at in enumerate(times) if at >= now - kept), len(channel.events))
            self._cut(channel, len(channel.events) - many)
        oldest_end = now - (age or 0) - contract.END_REMEMBERED
        if channel.end and channel.end[1].time < oldest_end and not channel.events:
            channel.end = channel.reason = None
            channel.produced = False
            self._count(channel)


class _Lengths:
    """Channels by how many events they have, so that the longest is found at once."""

    def __init__(self) -> None:
        self._of: dict[int, OrderedDict[str, None]] = {}
        self._most = 0

    def change(self, name: str, before: int, now: int) -> None:
        if before == now:
            return
        if before:
            del self._of[before][name]
            if not self._of[before]:
                del self._of[before]
        if now:
            self._of.setdefault(now, OrderedDict())[name] = None
            self._most = max(self._most, now)

    def longest(self) -> str:
        """Return the longest channel; of several, the one that has had its length longest."""
        while self._most not in self._of:
            self._most -= 1
        return next(iter(self._of[self._most]))


class _Forgotten:
    """Up to which seq channels were trimmed that have nothing left, and a floor for all others."""

    def __init__(self) -> None:
        self._seqs: OrderedDict[str, int] = OrderedDict()  # emptied longest ago first
        self._floor = 0

    def add(self, name: str, seq: int) -> None:
        if seq > self._floor:
            self._seqs[name] = seq
        while len(self._seqs) > contract.CHANNELS_REMEMBERED:
            self._floor = max(self._floor, self._seqs.popitem(last=False)[1])

    def get(self, name: str) -> int:
        return self._seqs.get(name, self._floor)

    def pop(self, name: str) -> int:
        return self._seqs.pop(name, self._floor)
