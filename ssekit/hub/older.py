"""What is no longer among the recent entries, read from the broker for all who need it.

Readers at the same position share what was read, and only a few read at once: a storm of returning
clients is never in the way of a publish.  In a storm the first that needs a piece waits for a
moment, and then reads for all that have come meanwhile, whatever their channels: the readings grow
with the log and not with the clients.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence

from ssekit.brokers import Broker, Entry, HistoryLost, id_of, parse_id
from ssekit.host.wakeup import NativeLock
from ssekit.hub.entries import is_end
from ssekit.hub.pieces import KEYED_PIECE, PIECE, Piece, View

AT_ONCE = 2
"""Readings of a broker that go on at once in a process."""
ENTRIES = 200
"""Entries that one reading asks for, for one position."""
MOST_ENTRIES = 500
"""The same for several positions."""
POSITIONS = 64
"""Positions that one reading is for."""
NEAR = 10_000
"""Entries between those positions at most: what lies between is read for nothing."""
STORM = 0.05
"""Seconds after a reading within which the next one waits for others to join it."""
GATHER = 0.01
"""Seconds for which it waits."""
MOST_SHARED = 8 * 1024 * 1024
"""Bytes of pieces that are kept for others at the same position."""
FRESH = 2.0
"""Seconds for which they are kept: values of keys may be replaced meanwhile."""
OVERHEAD = 512
"""Bytes of a piece, and of an entry in it, in addition to the block."""

Position = tuple[View, int, int]
Answers = dict[Position, Piece | HistoryLost | None]


class _Reading:
    """What some readers wait for; the one that asked first reads for all."""

    def __init__(self) -> None:
        self.positions: set[Position] = set()
        self.over = threading.Event()
        self.answers: Answers = {}
        self.error: Exception | None = None


class OlderEntries:
    """Pieces of a log that are read from its broker."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._turns = threading.Semaphore(AT_ONCE)
        self._lock = NativeLock()  # held for moments, by any thread
        self._next: _Reading | None = None  # the one that others may join
        self._read_at = -STORM
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
        reading, begins = self._join(wanted)
        if begins:
            self._carry_out(reading)
        else:
            reading.over.wait()
        if reading.error is not None:
            raise reading.error
        if wanted not in reading.answers:  # The one that began it was ended meanwhile.
            return self.piece(view, epoch, position)
        answer = reading.answers[wanted]
        if isinstance(answer, HistoryLost):
            raise answer
        return answer

    def pieces(self, positions: Sequence[Position]) -> Answers:
        """Return what follows each of some positions, None if nothing does, or why it is lost.

        Raises `BrokerUnavailable` and `HubClosed` as `Broker.read` does.
        """
        with self._turns:
            return self._answers(positions)

    def forget_stale(self) -> None:
        """Drop what was kept for others and is no longer fresh."""
        oldest = time.monotonic() - FRESH
        with self._lock:
            while self._shared:
                wanted, (_, read_at) = next(iter(self._shared.items()))
                if read_at > oldest:
                    break
                self._drop(wanted)

    def _join(self, wanted: Position) -> tuple[_Reading, bool]:
        """Return the reading that will answer for a position, and whether it is yet to begin."""
        with self._lock:
            reading = self._next
            begins = reading is None or len(reading.positions) >= POSITIONS
            if reading is None or begins:
                reading = self._next = _Reading()
            reading.positions.add(wanted)
            return reading, begins

    def _carry_out(self, reading: _Reading) -> None:
        """Read for all who have joined a reading; in a storm, wait for them for a moment."""
        try:
            if time.monotonic() - self._read_at < STORM:
                time.sleep(GATHER)
            with self._turns:
                self._close(reading)
                reading.answers = self._answers(reading.positions)
        except Exception as error:
            reading.error = error
        finally:
            self._close(reading)
            reading.over.set()

    def _close(self, reading: _Reading) -> None:
        with self._lock:
            if self._next is reading:
                self._next = None

    def _answers(self, positions: Iterable[Position]) -> Answers:
        """Return what is kept for some positions, and read for the others; for one with a turn."""
        answers: Answers = {wanted: self._kept(wanted) for wanted in positions}
        missing = [wanted for wanted, piece in answers.items() if piece is None]
        return answers | self._read(missing)

    def _read(self, positions: Sequence[Position]) -> Answers:
        """Read until there is an answer for each position."""
        answers: Answers = {}
        missing = sorted(positions, key=_place)
        while missing:
            _, epoch, position = missing[0]
            near = [
                wanted
                for wanted in missing[:POSITIONS]
                if wanted[1] == epoch and wanted[2] - position <= NEAR
            ]
            answers |= self._read_near(near)
            missing = [wanted for wanted in missing if wanted not in answers]
        return answers

    def _read_near(self, positions: Sequence[Position]) -> Answers:
        """Read once from the first of some positions; later ones may be left without an answer."""
        first, *others = positions
        here = id_of(first[1], first[2])
        channels = frozenset().union(*(view.channels for view, _, _ in positions))
        try:
            limit = MOST_ENTRIES if others else ENTRIES
            entries, cursor = self._broker.read(channels, here, limit)
        except HistoryLost as lost:
            if not others:
                return {first: lost}
            # Perhaps only what some of them need.
            half = len(positions) // 2
            return self._read_near(positions[:half]) | self._read_near(positions[half:])
        finally:
            self._read_at = time.monotonic()
        if not others:
            return {first: None if cursor == here else self._keep_all(first, entries, cursor)}
        return self._divide(positions, entries, cursor)

    def _divide(
        self, positions: Sequence[Position], entries: Sequence[Entry], cursor: str
    ) -> Answers:
        """Answer those positions from which a reading got on, each with what is its own."""
        end = parse_id(cursor)[1]
        seqs = [parse_id(entry.id)[1] for entry in entries]
        places: dict[str, list[int]] = {}  # in the list, by channel
        for place, entry in enumerate(entries):
            places.setdefault(entry.channel, []).append(place)
        answers: Answers = {}
        for wanted in positions:
            view, _, position = wanted
            if position < end:
                own = sorted(place for name in view.channels for place in places.get(name, ()))
                its = [entries[place] for place in own if seqs[place] > position]
                answers[wanted] = self._keep_all(wanted, its, cursor)
        return answers or self._read_near(positions[:1])

    def _keep_all(self, wanted: Position, entries: Sequence[Entry], cursor: str) -> Piece | None:
        """Keep what follows a position as pieces, and return the first."""
        view, first = wanted[0], None
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
            self._bytes += _size(piece)
            while self._bytes > MOST_SHARED and len(self._shared) > 1:
                self._drop(next(iter(self._shared)))

    def _drop(self, wanted: Position) -> None:
        dropped = self._shared.pop(wanted, None)
        if dropped is not None:
            self._bytes -= _size(dropped[0])


def _place(wanted: Position) -> tuple[int, int]:
    return wanted[1:]


def _size(piece: Piece) -> int:
    return piece.size + OVERHEAD * (len(piece.entries) + 1)


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
