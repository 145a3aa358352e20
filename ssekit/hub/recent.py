"""The newest entries of a log, in the memory of a process that follows it.

The tail fills a ring, and whoever reads has a position in it.  It knows entries and positions, and
nobody who has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ssekit.brokers import Entry, id_of, parse_id

PIECE = 64 * 1024
"""Bytes that a viewer is given at once: enough for few calls, too few to starve others."""
LOOK = 1000
"""Entries that are looked through for one piece."""


class Piece(NamedTuple):
    """Some entries as the bytes of one block, with the position behind them."""

    events: int
    block: bytes
    epoch: int
    position: int


class Ring:
    """The newest entries of the log, by seq: those with ``start < seq <= end``."""

    def __init__(self, size: int) -> None:
        self.epoch = -1
        self.start = 0
        self.end = 0
        self._size = size
        self._entries: list[Entry] = []
        self._offset = 0  # the seq of the entry before the first of the list
        self._epochs = [(0, -1)]  # with the seq from which on each holds
        self._made: tuple[object, Piece] | None = None  # the last piece, and of what it is

    @property
    def tip(self) -> str:
        """The cursor at the end of the ring."""
        return id_of(self.epoch, self.end)

    def reset(self, cursor: str) -> None:
        """Begin anew, empty, at a cursor."""
        self.epoch, self.end = parse_id(cursor)
        self.start = self._offset = self.end
        self._entries = []
        self._epochs = [(self.end, self.epoch)]
        self._made = None

    def extend(self, entries: Sequence[Entry]) -> None:
        """Take the entries that follow the end."""
        self._entries += entries
        self.end = self._offset + len(self._entries)
        if parse_id(entries[-1].id)[0] != self.epoch:
            self._note_epochs(entries)
        self.start = max(self.start, self.end - self._size)
        if self.start - self._offset > self._size:
            # Dropping from the front of a list costs its length, so it is done once in a while.
            del self._entries[: self.start - self._offset]
            self._offset = self.start

    def _note_epochs(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            epoch, seq = parse_id(entry.id)
            if epoch != self.epoch:
                self.epoch = epoch
                self._epochs.append((seq, epoch))
        while len(self._epochs) > 1 and self._epochs[1][0] <= self.start:
            del self._epochs[0]

    def epoch_at(self, position: int) -> int:
        """Return the epoch of the entry at a position of the ring."""
        if position >= self._epochs[-1][0]:
            return self.epoch
        return next((epoch for since, epoch in reversed(self._epochs) if since <= position), -1)

    def holds(self, epoch: int, position: int) -> bool:
        """Tell whether a position is in the ring, so that what comes behind it is."""
        return self.start <= position <= self.end and epoch == (
            self.epoch if position == self.end else self.epoch_at(position)
        )

    def between(self, start: int, end: int) -> Sequence[Entry]:
        """Return the entries with ``start < seq <= end``."""
        return self._entries[start - self._offset : end - self._offset]

    def piece(self, channels: frozenset[str], position: int) -> Piece:
        """Return what follows a position in some channels, up to about `PIECE` bytes of it.

        Viewers who stand together ask for the same one after the other, so it is made once.
        """
        wanted = (channels, position, self.end)
        if self._made is not None and self._made[0] == wanted:
            return self._made[1]
        frames: list[bytes] = []
        size = 0
        for entry in self.between(position, min(position + LOOK, self.end)):
            position += 1
            if entry.channel in channels:
                frames.append(entry.frame)
                size += len(entry.frame)
                if size >= PIECE:
                    break
        piece = Piece(len(frames), b"".join(frames), self.epoch_at(position), position)
        self._made = (wanted, piece)
        return piece
