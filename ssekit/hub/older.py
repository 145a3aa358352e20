"""What is no longer among the recent entries, read from the broker for all who need it.

Readers at the same position share what was read, and only a few read at once: a storm of returning
clients is never in the way of a publish.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from ssekit.brokers import Broker, Entry, id_of, parse_id
from ssekit.host.wakeup import NativeLock
from ssekit.hub.entries import is_end
from ssekit.hub.recent import KEYED_PIECE, PIECE, Piece, View

AT_ONCE = 2
"""Readings of a broker that go on at once in a process."""
ENTRIES = 200
"""Entries that one reading asks for."""
MOST_SHARED = 8 * 1024 * 1024
"""Bytes of pieces that are kept for others at the same position."""
FRESH = 2.0
"""Seconds for which they are kept: values of keys may be replaced meanwhile."""

Position = tuple[View, int, int]


class OlderEntries:
    """Pieces of a log that are read from its broker."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._turns = threading.Semaphore(AT_ONCE)
        self._lock = NativeLock()  # held for moments, by any thread
        self._shared: OrderedDict[Position, tuple[Piece, float]] = OrderedDict()
        self._bytes = 0

    def piece(self, view: View, epoch: int, position: int) -> Piece | None:
        """Return what follows a position, or None if nothing does.

        Raises `HistoryLost`, `BrokerUnavailable` and `HubClosed` as `Broker.read` does.
        """
        wanted = (view, epoch, position)
        piece = self._kept(wanted)
        if piece is not None:
            return piece
        with self._turns:
            piece = self._kept(wanted)  # read by another meanwhile
            return piece if piece is not None else self._read(wanted)

    def _read(self, wanted: Position) -> Piece | None:
        view, epoch, position = wanted
        here = id_of(epoch, position)
        entries, cursor = self._broker.read(view.channels, here, ENTRIES)
        if cursor == here:
            return None
        first = None
        for piece in _pieces(view, entries, cursor):
            first = first or piece
            self._keep(wanted, piece)
            wanted = (view, piece.epoch, piece.position)
        return first

    def _kept(self, wanted: Position) -> Piece | None:
        with self._lock:
            piece, read_at = self._shared.get(wanted, (None, 0.0))
            return piece if time.monotonic() - read_at < FRESH else None

    def _keep(self, wanted: Position, piece: Piece) -> None:
        with self._lock:
            self._drop(wanted)
            self._shared[wanted] = (piece, time.monotonic())
            self._bytes += len(piece.block)
            while self._bytes > MOST_SHARED and len(self._shared) > 1:
                self._drop(next(iter(self._shared)))

    def _drop(self, wanted: Position) -> None:
        dropped = self._shared.pop(wanted, None)
        if dropped is not None:
            self._bytes -= len(dropped[0].block)


def _pieces(view: View, entries: Sequence[Entry], cursor: str) -> Iterator[Piece]:
    """Divide entries into pieces of which each but the last ends with its last entry."""
    some: list[Entry] = []
    size, most = 0, PIECE
    for entry in entries:
        some.append(entry)
        size += len(entry.body)
        if entry.key is not None:
            most = KEYED_PIECE
        if size >= most or is_end(entry):
            at = cursor if entry is entries[-1] else entry.id
            yield Piece(view, some, *parse_id(at))
            some, size, most = [], 0, PIECE
    if some or not entries:
        yield Piece(view, some, *parse_id(cursor))
