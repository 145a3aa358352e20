"""What is sent to a reader of a log at once, and shared by all that are at the same position."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from ssekit.brokers import Entry
from ssekit.host.chunks import chunk_of
from ssekit.hub.entries import framing

PIECE = 64 * 1024
"""Bytes that a reader is given at once: enough for few calls, too few to starve others."""
KEYED_PIECE = 4 * 1024
"""The same where values of keys are among them, which may be replaced before they are sent."""
MOST_SHARED = 4 * 1024 * 1024
"""Bytes of pieces that are kept for others at the same position."""


class View(NamedTuple):
    """What a reader gets of the log."""

    channels: frozenset[str]
    hub_events: bool = True
    """Whether it knows the hub's own events; otherwise it gets their ids at most."""
    internal: int = 0
    """How many of the channels are the hub's own: they never end."""
    own_ids: bool = True
    """Whether a reader that knows no hub events gets their ids."""

    def is_finished(self, ended: Collection[str]) -> bool:
        """Tell whether nothing more comes, once these of the channels are finished."""
        return len(ended) >= len(self.channels) - self.internal


FINISHED = "source ended"
BROKEN_OFF = "producer failed"


def finished_why(view: View, broken_off: Collection[str]) -> str:
    """Return why a stream ends whose channels are finished, some of them broken off.

    A client that gets no ``stream-end`` would take an orderly end for the end of all events.
    """
    return BROKEN_OFF if broken_off and not view.hub_events else FINISHED


class Piece:
    """Some entries as the bytes of one block, and the position after them.

    The bytes are made when they are first asked for, and once for each framing.
    """

    __slots__ = ("_block", "_chunk", "_frames", "entries", "epoch", "position", "size")

    def __init__(self, view: View, entries: Sequence[Entry], epoch: int, position: int) -> None:
        self.entries = entries
        self.epoch = epoch
        self.position = position
        self._frames = list(map(framing(view.hub_events, view.own_ids), entries))
        self.size = sum(map(len, self._frames))
        """Bytes of the block."""
        self._block: bytes | None = None
        self._chunk: bytes | None = None

    @property
    def block(self) -> bytes:
        """The frames of the entries."""
        if self._block is None:
            self._block = b"".join(self._frames)
        return self._block

    def framed(self, chunked: bool) -> bytes:
        """Return the block as it is sent, in a chunk of its own or as it is."""
        if not chunked or not self.size:
            return self.block
        if self._chunk is None:
            self._chunk = chunk_of(self._frames)
        return self._chunk


Wanted = tuple[View, int, int, int]
"""Of a piece: its view and position, and up to where its reader has kept up."""


class SharedPieces:
    """The latest pieces, for all who want the same: `MOST_SHARED` bytes at most."""

    def __init__(self) -> None:
        self._pieces: dict[Wanted, Piece] = {}  # the oldest first
        self._ends: set[tuple[View, int]] = set()
        self._bytes = 0

    def get(self, wanted: Wanted) -> Piece | None:
        """Return a piece, if it is kept."""
        return self._pieces.get(wanted)

    def ends_at(self, view: View, position: int) -> bool:
        """Tell whether a piece ends at a position."""
        return (view, position) in self._ends

    def keep(self, wanted: Wanted, piece: Piece) -> None:
        """Keep a piece for others."""
        self._pieces[wanted] = piece
        self._ends.add((wanted[0], piece.position))
        self._bytes += piece.size
        while self._bytes > MOST_SHARED and len(self._pieces) > 1:
            oldest = next(iter(self._pieces))
            dropped = self._pieces.pop(oldest)
            self._ends.discard((oldest[0], dropped.position))
            self._bytes -= dropped.size

    def clear(self) -> None:
        """Keep none."""
        self._pieces.clear()
        self._ends.clear()
        self._bytes = 0
