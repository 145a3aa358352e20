"""Viewers that are not caught up: each is a position in the log, and reads on when it can.

Each reads from the recent entries, and what is older from the broker, in pieces that it shares with
others at the same position.  They have their turns in slices of the event loop's time, so that
requests and new events go on meanwhile.  A viewer that has read everything is handed back to the
fan-out.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator

import gevent

from ssekit import host
from ssekit.brokers import HistoryLost
from ssekit.errors import BrokerUnavailable, HubClosed
from ssekit.host.backoff import jittered
from ssekit.host.logs import Logger
from ssekit.host.turns import NextTurn, wait_for_next_turn
from ssekit.hub.entries import is_end
from ssekit.hub.follower import Follower
from ssekit.hub.older import AT_ONCE, POSITIONS, Position
from ssekit.hub.pieces import Piece
from ssekit.hub.reader import RETRY
from ssekit.hub.viewers import Lag, Viewer

log = Logger("ssekit.hub")

SLOW = "too slow"
DELIVERY_FAILED = "delivery failed"
SLICE = 0.005
"""Seconds of the event loop's time that lagging viewers get at once."""


class LaggingViewers:
    """Those of one hub in this process.

    ``caught_up`` is called with each that has read everything, ``end`` with each whose stream ends.
    """

    def __init__(
        self,
        follower: Follower,
        caught_up: Callable[[Viewer], None],
        end: Callable[[Viewer, str], None],
    ) -> None:
        self._follower = follower
        self._recent = follower.recent
        self._counts = follower.counts
        self._tally = follower.tally
        self._caught_up = caught_up
        self._end = end
        self._viewers: set[Viewer] = set()
        self._due: deque[Viewer] = deque()  # those whose turn has come
        self._turn = NextTurn(self._serve_some)
        self._wanted: dict[Position, list[Viewer]] = {}  # older pieces, and who waits for them
        self._unread: deque[Position] = deque()  # of them, those that nobody reads yet
        self._reading = 0
        self._events = gevent.get_hub().loop

    def __iter__(self) -> Iterator[Viewer]:
        return iter(self._viewers)

    def add(self, viewer: Viewer, epoch: int, position: int, rest: memoryview) -> None:
        """Take a viewer that has yet to be sent ``rest``, and then what follows a position."""
        viewer.lag = Lag(epoch, position, rest)
        if viewer not in self._viewers:
            self._viewers.add(viewer)
            self._counts.add("lagging")

    def discard(self, viewer: Viewer) -> None:
        """Forget a viewer."""
        if viewer.lag is not None:
            if viewer.lag.watcher is not None:
                viewer.lag.watcher.stop()
                viewer.lag.watcher.close()
            viewer.lag = None
            self._viewers.discard(viewer)
            self._counts.add("lagging", -1)

    def give_turn(self, viewer: Viewer) -> None:
        """Have a viewer served soon."""
        lag = viewer.lag
        if lag is None or lag.due:
            return
        lag.due = True
        if lag.watcher is not None:
            lag.watcher.stop()
        self._due.append(viewer)
        self._turn.ask()

    def watch(self, viewer: Viewer) -> None:
        """Serve a viewer once its socket can take more."""
        lag = viewer.lag
        if lag is not None:
            if lag.watcher is None:
                lag.watcher = self._events.io(viewer.descriptor, 2)
            lag.watcher.start(self.give_turn, viewer)

    def count(self, viewer: Viewer, piece: Piece) -> None:
        """Count a piece that a viewer is sent, and note the end of a channel in it."""
        entries = piece.entries
        if entries and is_end(entries[-1]):
            viewer.group.note_end(entries[-1], piece.position)
        viewer.events += len(entries)
        viewer.bytes += piece.size
        self._tally.events += len(entries)
        self._tally.bytes += piece.size

    def _serve_some(self) -> None:
        """Serve viewers for a slice of time, so that others have their turns between."""
        until = time.monotonic() + SLICE
        while self._due:
            viewer = self._due.popleft()
            if viewer.lag is not None:
                viewer.lag.due = False
                self._try_to_serve(viewer, viewer.lag)
            if time.monotonic() >= until:
                break
        if self._due:
            self._turn.ask()

    def _try_to_serve(self, viewer: Viewer, lag: Lag) -> None:
        try:
            self._serve(viewer, lag)
        except Exception:
            log.exception("a delivery failed; its client comes back and resumes")
            self._end(viewer, DELIVERY_FAILED)

    def _serve(self, viewer: Viewer, lag: Lag) -> None:
        """Send a viewer what its socket takes, one piece at most."""
        if not lag.rest and not self._refill(viewer, lag):
            return
        try:
            written = os.write(viewer.descriptor, lag.rest)
        except BlockingIOError:
            written = 0
        except OSError:
            self._end(viewer, host.DISCONNECTED)
            return
        lag.rest = lag.rest[written:]
        if lag.rest:
            self.watch(viewer)
        elif self._refill(viewer, lag):
            self.give_turn(viewer)

    def _refill(self, viewer: Viewer, lag: Lag) -> bool:
        """Read the next piece; false if there is none for now, or the viewer lags no more."""
        recent, group = self._recent, viewer.group
        while not group.finished_by(lag.position):
            if not recent.holds(lag.epoch, lag.position):
                self._want_older(viewer, lag)
                return False
            if lag.position == recent.end:
                self.discard(viewer)
                self._caught_up(viewer)
                return False
            if self._fill(viewer, lag, recent.piece(group.view, lag.position)):
                return True
        self._end(viewer, group.why_finished)
        return False

    def _fill(self, viewer: Viewer, lag: Lag, piece: Piece) -> bool:
        """Have the viewer sent a piece; false if there is nothing in it for it."""
        lag.epoch, lag.position = piece.epoch, piece.position
        self.count(viewer, piece)
        lag.rest = memoryview(piece.framed(viewer.group.kind.chunked))
        return bool(lag.rest)

    def _want_older(self, viewer: Viewer, lag: Lag) -> None:
        """Have a piece read from the broker, once for all viewers that need it."""
        if lag.watcher is not None:
            lag.watcher.stop()
        wanted = (viewer.group.view, lag.epoch, lag.position)
        if wanted not in self._wanted:
            self._wanted[wanted] = []
            self._unread.append(wanted)
            if self._reading < AT_ONCE:
                self._reading += 1
                gevent.spawn(self._read_older)
        self._wanted[wanted].append(viewer)

    def _read_older(self) -> None:
        try:
            while self._unread:
                some = [self._unread.popleft() for _ in range(min(len(self._unread), POSITIONS))]
                try:
                    pieces = self._follower.older.pieces(some)
                except (BrokerUnavailable, HubClosed):
                    self._unread.extend(some)
                    gevent.sleep(jittered(RETRY, 0.5, 1.0))
                    continue
                except Exception as error:
                    log.warning("older events could not be read: %r", error)
                    pieces = dict.fromkeys(some, HistoryLost(str(error)))
                for wanted in some:
                    self._give_older(wanted, pieces[wanted])
                wait_for_next_turn()
        finally:
            self._reading -= 1

    def _comes_later(self, lag: Lag, piece: Piece | None) -> bool:
        """Return whether the follower is about to come to what a viewer needs."""
        if piece is None:
            return self._recent.is_ahead(lag.epoch, lag.position)
        return self._follower.holds_back(piece.epoch, piece.position)

    def _give_older(self, wanted: Position, piece: Piece | HistoryLost | None) -> None:
        for viewer in self._wanted.pop(wanted):
            lag = viewer.lag
            if lag is None:
                continue  # It has left meanwhile.
            if isinstance(piece, HistoryLost):
                self._end(viewer, SLOW)  # Its client comes back, and is told what is lost.
            elif self._comes_later(lag, piece):
                gevent.spawn_later(0.05, self.give_turn, viewer)
            elif piece is not None:
                self._fill(viewer, lag, piece)
                self.give_turn(viewer)
            else:
                self._end(viewer, SLOW)
