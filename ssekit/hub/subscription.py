"""A cursor in a hub's log, as an iterator of events.

Live delivery, resuming and catching up are the same thing here: read behind the cursor, and wait
where there is nothing to read.  The newest entries come from the process's ring, older ones from
the broker.  There is no queue, so nothing can overflow and nothing can fall between two of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import suppress

from ssekit import host
from ssekit.brokers import Broker, HistoryLost, id_of, parse_id
from ssekit.errors import BrokerUnavailable, HubClosed
from ssekit.hub.follower import Tail
from ssekit.wire import Event

OPEN = "stream-open"
RESET = "stream-reset"
RESERVED = frozenset({OPEN, RESET})

MOST = 200
"""Entries that are read at once."""
RETRY = 1.0
"""Seconds between two tries to read from a broker that is away."""


class Subscription:
    """An iterator of the events of some channels; made by ``Hub.subscribe``.

    ``last_event_id`` is the id behind which to begin; without one it begins with the event
    ``stream-open``, whose id is the log's end, and goes on from there.  If the log no longer holds
    what comes behind the id, it begins with ``stream-reset`` instead.  Iterating waits for the
    next event; it ends once the subscription or its hub is closed.

    A hub's own stream gives its ``client`` and asks for blocks of bytes instead.
    """

    __slots__ = (
        "__weakref__",
        "_away",
        "_broker",
        "_client",
        "_closed",
        "_opening",
        "_ready",
        "_tail",
        "channels",
        "epoch",
        "parked",
        "position",
    )

    def __init__(
        self,
        tail: Tail,
        broker: Broker,
        channels: frozenset[str],
        last_event_id: str | None = None,
    ) -> None:
        self.channels = channels
        self.parked = False
        self.epoch = -1
        self.position = -1
        self._tail = tail
        self._broker = broker
        self._ready: list[Event] = []
        self._opening: str | None = OPEN  # what to say first, at the log's end
        self._away = False
        self._closed = False
        self._client: host.Client | None = None
        # HTML standard, 9.2.4: an empty last event ID is as good as none.
        if last_event_id:
            try:
                self.epoch, self.position = parse_id(last_event_id)
                self._opening = None
            except HistoryLost:
                self._opening = RESET
        else:
            self._open(OPEN)  # at once: whoever publishes next means this viewer too

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        while not self._ready:
            if self._over():
                raise StopIteration
            if not self._read():
                if self._client is None:
                    self._client = host.current()
                self._wait(self._client.wait)
        return self._ready.pop(0)

    def block(self, client: host.Client) -> tuple[int, bytes]:
        """Return the next events as one block, and how many they are.

        None of either if there is nothing after one wait, so that a stream can have a look and send
        its heartbeat.  Raises StopIteration at the end, and `host.Ended`.
        """
        self._client = client
        events, block = 0, b""
        if not self._at_end():
            client.enter()  # Others may want to run first.
            client.leave()
            events, block = self._next_block()
        if not events:
            self._wait(client.idle)
            client.check()
            events, block = self._next_block()
            if not events and self._over():
                raise StopIteration
        return events, block

    def close(self) -> None:
        """End the iteration, also one that waits in another thread."""
        self._closed = True
        if self.parked:
            self._tail.unpark(self)
        self.wake()

    def wake(self) -> None:
        """Look again: called by the tail."""
        if self._client is not None:
            self._client.wake()

    def settle(self) -> bool:
        """Stand in the ring, if that is possible now; `pending` is then what comes before it."""
        while not self._tail.holds(self.epoch, self.position):
            if self._opening is None or not self._read():
                return False
        return True

    def pending(self) -> list[Event]:
        """Take the events that were read and not yet yielded."""
        events, self._ready = self._ready, []
        return events

    def _over(self) -> bool:
        return self._closed or self._tail.closed

    def _at_end(self) -> bool:
        ring = self._tail.ring
        return (
            self.position == ring.end
            and self.epoch == ring.epoch
            and not self._ready
            and self._opening is None
        )

    def _next_block(self) -> tuple[int, bytes]:
        """Read on; nothing if there is nothing to read now."""
        while not self._over():
            if self._ready:
                events = self.pending()
                return len(events), b"".join(event.encode() for event in events)
            piece = None
            if self._opening is None:
                piece = self._tail.piece(self.channels, self.epoch, self.position)
            if piece is None:
                if not self._read():
                    break
            elif piece.position == self.position:
                break
            else:
                self.epoch, self.position = piece.epoch, piece.position
                if piece.events:
                    return piece.events, piece.block
        return 0, b""

    def _read(self) -> bool:
        """Read on; false if there is nothing to read now."""
        if self._opening is not None:
            return self._open(self._opening)
        entries = self._tail.read(self.epoch, self.position, MOST)
        if entries is None:
            return self._read_older()
        if entries:
            self.epoch, self.position = parse_id(entries[-1].id)
        self._ready += (entry.event for entry in entries if entry.channel in self.channels)
        return bool(entries)

    def _open(self, name: str) -> bool:
        """Begin at the log's end; false if it cannot be reached just now."""
        tip = None
        if not self._tail.away:
            # The tail's own end may be a moment behind.
            with suppress(BrokerUnavailable, HubClosed):
                tip = self._broker.tip()
        tip = tip or self._tail.tip()
        if tip is None:
            return False
        self.epoch, self.position = parse_id(tip)
        self._opening = None
        data = {} if name == OPEN else {"reason": "history-lost"}
        self._ready.append(Event(data, name, tip))
        return True

    def _read_older(self) -> bool:
        here = id_of(self.epoch, self.position)
        try:
            entries, cursor = self._broker.read(self.channels, here, MOST)
        except HistoryLost:
            self._opening = RESET
            return True
        except BrokerUnavailable:
            # The tail has logged it, or will; nothing is lost by trying again.
            self._away = True
            return False
        except HubClosed:
            return False
        self._away = False
        self.epoch, self.position = parse_id(cursor)
        self._ready += (entry.event for entry in entries)
        return cursor != here

    def _wait(self, wait: Callable[[float | None], object]) -> None:
        """Wait until there may be something to read."""
        limit = random.uniform(RETRY / 2, RETRY) if self._away else None  # noqa: S311
        if self._tail.park(self):
            try:
                if not self._closed:  # by another thread, before it could wake this one
                    wait(limit)
            finally:
                if self.parked:
                    self._tail.unpark(self)
