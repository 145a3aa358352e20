"""The newest entries of a log, in the memory of a process that follows it.

The follower adds entries, and readers have a position among them.  What follows a position is given
in pieces, which readers at the same position share: made once, framed once.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from heapq import merge
from itertools import islice

from ssekit.brokers import Entry, Retention, id_of, parse_id
from ssekit.hub.entries import is_end, is_removal
from ssekit.hub.pieces import KEYED_PIECE, PIECE, Piece, SharedPieces, View

MOST_BYTES = 64 * 1024 * 1024
"""Bytes of entries that are kept in memory, however few entries they are."""
CLOCKS_DIFFER = 5.0
"""Seconds by which our clock and the log's may differ."""
MOST_RESUMED = 1000
"""Positions of which it is kept which channels have entries after them."""


class RecentEntries:
    """The newest entries of the log, by seq: those with ``start < seq <= end``."""

    def __init__(self, size: int, most_bytes: int = MOST_BYTES) -> None:
        self.epoch = -1
        self.start = 0
        self.end = 0
        self._size = size
        self._most_bytes = most_bytes
        self._begin(0)

    def _begin(self, position: int) -> None:
        self._entries: list[Entry] = []
        self._offset = position  # the seq of the entry before the first of the list
        self._epochs = [(position, self.epoch)]  # with the seq from which on each holds
        self._seqs: dict[str, list[int]] = {}  # by channel
        self._newest: dict[tuple[str, str], int] = {}  # by channel and key, the newest's seq
        self._bytes = 0  # of the entries after the start
        self._lasting = SharedPieces()
        self._latest = SharedPieces()  # pieces that are others when there are newer entries
        self._resumed: dict[tuple[View, int, int], set[str]] = {}  # what `resume` found

    @property
    def size(self) -> int:
        """The bytes of the entries' bodies."""
        return self._bytes

    @property
    def tip(self) -> str:
        """The cursor at the newest entry."""
        return id_of(self.epoch, self.end)

    def reset(self, entries: Sequence[Entry], cursor: str) -> None:
        """Start again, with the log's newest entries and the cursor at its end."""
        self.epoch, self.end = parse_id(cursor)
        self.start = self.end - len(entries)
        if entries:
            self.epoch = parse_id(entries[0].id)[0]
        self._begin(self.start)
        self.end = self.start
        if entries:
            self.extend(entries)
            self._note_epoch(self.end, parse_id(cursor)[0])

    def extend(self, entries: Sequence[Entry]) -> None:
        """Take the entries that follow the newest."""
        self._entries += entries
        for seq, entry in enumerate(entries, self.end + 1):
            self._bytes += len(entry.body)
            self._seqs.setdefault(entry.channel, []).append(seq)
            if entry.key is not None:
                self._newest[entry.channel, entry.key] = seq
        self.end = self._offset + len(self._entries)
        if parse_id(entries[-1].id)[0] != self.epoch:
            self._note_epochs(entries)
        self._latest.clear()
        self._resumed.clear()
        self._trim()

    def _trim(self) -> None:
        start = max(self.start, self.end - self._size)
        for entry in self.between(self.start, start):
            self._bytes -= len(entry.body)
        while self._bytes > self._most_bytes and start < self.end:
            self._bytes -= len(self._entries[start - self._offset].body)
            start += 1
        self.start = start
        if self.start - self._offset > self._size or self._bytes > self._most_bytes // 2:
            # Dropping from the front of a list costs its length, so it is done once in a while.
            self._drop()

    def _drop(self) -> None:
        dropped = self._entries[: self.start - self._offset]
        del self._entries[: self.start - self._offset]
        for seq, entry in enumerate(dropped, self._offset + 1):
            if entry.key is not None and self._newest.get((entry.channel, entry.key)) == seq:
                del self._newest[entry.channel, entry.key]
        for channel in {entry.channel for entry in dropped}:
            seqs = self._seqs[channel]
            del seqs[: bisect_right(seqs, self.start)]
            if not seqs:
                del self._seqs[channel]
        self._offset = self.start
        while len(self._epochs) > 1 and self._epochs[1][0] <= self.start:
            del self._epochs[0]

    def _note_epochs(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            epoch, seq = parse_id(entry.id)
            self._note_epoch(seq, epoch)

    def _note_epoch(self, seq: int, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch = epoch
            self._epochs.append((seq, epoch))

    def epoch_at(self, position: int) -> int:
        """Return the epoch of the entry at a position."""
        if position >= self._epochs[-1][0]:
            return self.epoch
        return next((epoch for since, epoch in reversed(self._epochs) if since <= position), -1)

    def holds(self, epoch: int, position: int) -> bool:
        """Return whether what comes after a position is here."""
        return self.start <= position <= self.end and epoch == (
            self.epoch if position == self.end else self.epoch_at(position)
        )

    def is_ahead(self, epoch: int, position: int) -> bool:
        """Return whether a position is one that the follower has yet to reach."""
        return epoch > self.epoch or (epoch == self.epoch and position > self.end)

    def between(self, start: int, end: int) -> Sequence[Entry]:
        """Return the entries with ``start < seq <= end``."""
        return self._entries[start - self._offset : end - self._offset]

    def piece(self, view: View, position: int, live: int = 0, passing: int = 0) -> Piece:
        """Return what follows a position, about `PIECE` bytes of it at most.

        Passing entries and replaced values of keys are left out, but for those up to ``live``,
        and passing ones up to ``passing``: their reader kept up when they came.  A channel's end is
        the last entry of a piece.
        """
        wanted = (view, position, max(live, position), max(passing, position))
        piece = self._lasting.get(wanted) or self._latest.get(wanted)
        if piece is None:
            piece, lasts = self._piece(view, position, live, passing)
            (self._lasting if lasts else self._latest).keep(wanted, piece)
        return piece

    def _piece(self, view: View, position: int, live: int, passing: int) -> tuple[Piece, bool]:
        """Make a piece; returns it, and whether it is the same when there are newer entries.

        It ends where another one ends, if there is one on its way: readers that are at different
        positions share all pieces but their first.
        """
        entries: list[Entry] = []
        size, most = 0, PIECE
        for seq in self._after(view.channels, position):
            entry = self._entries[seq - self._offset - 1]
            if entry.passing and seq > live and seq > passing:
                continue
            if entry.key is not None:
                if seq > live and self._replaced(entry, seq):
                    continue
                most = KEYED_PIECE
            entries.append(entry)
            size += len(entry.body)
            if size >= most or self._lasting.ends_at(view, seq) or is_end(entry):
                position = seq
                break
        else:
            return Piece(view, entries, self.epoch_at(self.end), self.end), False
        return Piece(view, entries, self.epoch_at(position), position), most == PIECE

    def _after(self, channels: Collection[str], position: int) -> Iterable[int]:
        """Return where the entries of some channels are that come after a position."""
        each = []
        for channel in channels:
            seqs = self._seqs.get(channel)
            if seqs and seqs[-1] > position:
                each.append(islice(seqs, bisect_right(seqs, position), None))
        return each[0] if len(each) == 1 else merge(*each)

    def resume(
        self, view: View, epoch: int, position: int, retention: Retention
    ) -> set[str] | None:
        """Return the channels of a view that have entries after a position.

        None unless all that follows the position is here and, as it seems from here, in the log.
        """
        # Clients that come back all at once ask the same.  What expires is looked for each time.
        asked = (view, epoch, position)
        if asked in self._resumed and retention.max_age is None:
            return self._resumed[asked]
        if not self.holds(epoch, position) or self._may_be_trimmed(view, position, retention):
            return None
        seqs = self._seqs
        found = {name for name in view.channels if name in seqs and seqs[name][-1] > position}
        if len(self._resumed) < MOST_RESUMED:
            self._resumed[asked] = found
        return found

    def _may_be_trimmed(self, view: View, position: int, retention: Retention) -> bool:
        """Return whether the log may no longer have all that follows a position.

        It is then the log that decides: what is here is what a process happens to remember.
        """
        if self.end - position > retention.room:
            return True
        oldest = self.end
        for channel in view.channels:
            seqs = self._seqs.get(channel, [])
            first = bisect_right(seqs, position)
            if len(seqs) - first > retention.history:
                return True
            oldest = min([oldest, *seqs[first : first + 1]])
        if retention.max_age is None or oldest == position:
            return False
        began = self._entries[oldest - self._offset - 1].time
        return time.time() - began > retention.max_age - CLOCKS_DIFFER

    def _replaced(self, entry: Entry, seq: int) -> bool:
        return self._newest[entry.channel, entry.key or ""] != seq and not is_removal(entry)
