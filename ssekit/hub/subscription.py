"""A position in a hub's log, as an iterator of events in Python."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

from ssekit import host
from ssekit.brokers import Entry
from ssekit.hub.entries import ChannelEvent, event_of
from ssekit.hub.reader import Reader


class Subscription:
    """An iterator of the events of some channels; made by ``Hub.subscribe``.

    Iterating waits for the next event.  It ends once the subscription or its hub is closed, or all
    of its channels are finished.  It raises TimeoutError after ``timeout`` seconds without an
    event, and may be asked again then.
    """

    __slots__ = ("__weakref__", "_hub", "_reader", "_ready", "_timeout")

    def __init__(self, hub: object, reader: Reader, timeout: float | None = None) -> None:
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout must be seconds from 0 up, not {timeout!r}")
        reader.keeps_passing = True
        self._hub = hub  # which lives as long as we do
        self._reader = reader
        self._ready: deque[Entry] = deque()
        self._timeout = timeout

    def __iter__(self) -> Iterator[ChannelEvent]:
        return self

    def __next__(self) -> ChannelEvent:
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        reader = self._reader
        while not self._ready:
            piece = reader.next_piece()
            if piece is not None:
                self._ready.extend(piece.entries)
                continue
            if reader.over:
                raise StopIteration
            remaining = None if deadline is None else deadline - time.monotonic()
            if remaining is not None and remaining <= 0:
                raise TimeoutError(f"no event came within {self._timeout} s")
            if reader.client is None:
                reader.client = host.current()
            reader.wait(reader.client.wait, remaining)
        return event_of(self._ready.popleft())

    def close(self) -> None:
        """End the iteration, also one that waits in another thread."""
        self._reader.close()
        self._ready.clear()
