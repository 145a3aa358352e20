"""Where one client is in a log, and how it reads on.

Live delivery, resuming and catching up are the same thing here: read after a position, and wait
where there is nothing to read.  The newest entries come from the process's recent ones, older ones
from the broker.  There is no queue, so nothing can overflow and nothing can fall between two of
them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from ssekit import host
from ssekit.brokers import INTERNAL, Entry, HistoryLost, Opening, parse_id
from ssekit.errors import BrokerUnavailable, HubClosed
from ssekit.host.backoff import jittered
from ssekit.hub.entries import (
    is_broken_off,
    is_end,
    is_own,
    open_entry,
    reset_entry,
    without_id,
)
from ssekit.hub.follower import Follower
from ssekit.hub.pieces import Piece, View, finished_why

KEEPS_UP = 0.1
"""Seconds after which a client that had read everything, and has not come for more, is slow."""
RETRY = 1.0
"""Seconds between two attempts to read from a broker that is away."""


class Reader:
    """A position in a log, as seen by one client.

    It begins after ``last_event_id``.  Without one, or if the log no longer holds what comes after
    it, it begins with an opening: ``stream-reset`` where history was lost, the newest event of each
    key, the last ``replay`` events (None for all), and ``stream-open`` with the log's end, where it
    goes on.  The ends of those of its channels that are finished follow.
    """

    __slots__ = (
        "__weakref__",
        "_away",
        "_caught_up_at",
        "_closed",
        "_gave_at",
        "_opening",
        "_ready",
        "_replay",
        "_unasked",
        "client",
        "ended",
        "epoch",
        "finished",
        "follower",
        "keeps_passing",
        "live",
        "lost",
        "parked",
        "position",
        "view",
    )

    def __init__(
        self,
        follower: Follower,
        view: View,
        last_event_id: str | None = None,
        replay: int | None = 0,
    ) -> None:
        self.follower = follower
        self.view = view
        self.epoch = -1
        self.position = -1
        self.live = 0
        self.parked = False
        self.client: host.Client | None = None
        """What to wake when there is something to read."""
        self.ended: dict[str, Entry] = {}
        """The ends of channels that are at or before the position."""
        self.finished = False
        """Whether that is all of them, and nothing more will come."""
        self.lost = False
        """Whether the opening says that history was lost."""
        self.keeps_passing = False
        """Whether it gets the passing entries that came while it had read everything."""
        self._replay = replay
        self._ready: Piece | None = None
        self._unasked: frozenset[str] = frozenset()  # channels of which the end is to be learned
        self._opening = False  # whether it is yet to be made
        self._away = False
        self._closed = False
        self._caught_up_at = -1
        self._gave_at = 0.0  # when it gave a piece, on the monotonic clock
        # HTML standard, 9.2.4: an empty last event ID is the same as none.
        if last_event_id:
            self._resume(last_event_id)
        else:
            self._opening = True
            self._open()  # at once: what is published next is for this client too

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self._closed or self.follower.closed or (self.finished and self._ready is None)

    @property
    def closed(self) -> bool:
        """Whether it was closed, or its hub."""
        return self._closed or self.follower.closed

    @property
    def missed_nothing(self) -> bool:
        """Whether its channels are all finished, and the client has seen that."""
        return self.finished and self._ready is None

    @property
    def why_finished(self) -> str:
        """Why its stream ends, once it is finished."""
        broken_off = [channel for channel, end in self.ended.items() if is_broken_off(end)]
        return finished_why(self.view, broken_off)

    @property
    def settled(self) -> bool:
        """Whether others can read on from its position, after what `take_ready` returns."""
        if self._opening or self._unasked:
            return False
        return not self.follower.recent.is_ahead(self.epoch, self.position)

    def take_ready(self) -> Piece | None:
        """Take what was read and not yet given."""
        ready, self._ready = self._ready, None
        return ready

    def skip_own(self) -> None:
        """Read past what is only the hub's own: its client is sent nothing of that."""
        piece = self.next_piece()
        while piece is not None and not self.lost and all(map(is_own, piece.entries)):
            piece = self.next_piece()
        if piece is not None:
            self._ready = piece

    def at_end(self) -> bool:
        """Return whether there is nothing to read now."""
        recent = self.follower.recent
        return (
            self.position == recent.end
            and self.epoch == recent.epoch
            and self._ready is None
            and not self._opening
            and not self._unasked
        )

    def next_piece(self) -> Piece | None:
        """Read on; None if there is nothing to read now, or nothing more."""
        while not self.over:
            if self._held_back():
                return None
            piece = self.take_ready()
            if piece is not None:
                self._gave_at = time.monotonic()
                return piece
            if not self._read():
                return None
        return None

    def wait(self, wait: Callable[[float | None], object], seconds: float | None = None) -> None:
        """Wait until there may be something to read, or ``seconds`` have passed."""
        if self._away:
            retry = jittered(RETRY, 0.5, 1.0)
            seconds = retry if seconds is None else min(retry, seconds)
        if self.follower.park(self):
            try:
                # Another thread may have closed it, or got on, before it could wake this one.
                if not self._closed and (self._ready is None or self._held_back()):
                    wait(seconds)
            finally:
                if self.parked:
                    self.follower.unpark(self)

    def wake(self) -> None:
        """Look again: called by the follower."""
        if self.client is not None:
            self.client.wake()

    def keeps(self, end: int) -> tuple[int, int]:
        """Return up to where it gets every entry, and up to where every passing one."""
        if self._caught_up_at != self.position:
            return self.live, self.live
        if time.monotonic() - self._gave_at < KEEPS_UP:
            return end, end  # Nothing has held it up since: it is about to wait for more.
        return self.live, end if self.keeps_passing else self.live

    def _held_back(self) -> bool:
        """Return whether there is a piece to give, but not yet."""
        return self._ready is not None and self.follower.holds_back(self.epoch, self.position)

    def close(self) -> None:
        """End the reading, also a wait in another thread."""
        self._closed = True
        self.follower.forget(self)
        self.wake()

    def _resume(self, last_event_id: str) -> None:
        try:
            self.epoch, self.position = parse_id(last_event_id)
        except HistoryLost:
            self._lose()
            return
        begin = self.position
        going_on = self.follower.resume(self.view, self.epoch, begin)
        if going_on is None:
            self._read_older()  # at once, so that it is known now if history was lost
            if self.lost:
                return
            going_on = {entry.channel for entry in self._ready.entries} if self._ready else set()
        # A channel with entries after the position had not ended there.
        self._unasked = self.view.channels - going_on
        if self._unasked:
            self._learn_ends()

    def _learn_ends(self) -> None:
        """Learn which channels had ended already; while the log is away it is asked again."""
        try:
            ends = self.follower.ends(self._unasked, self.epoch, self.position)
        except (BrokerUnavailable, HubClosed):
            self._away = True
            return
        self._away = False
        self._unasked = frozenset()
        self.ended = _ended_by(ends, self.position) | self.ended
        self.finished = self.view.is_finished(self.ended)

    def _lose(self) -> None:
        self.lost = self._opening = True
        self._open()

    def _read(self) -> bool:
        """Read on; false if there is nothing to read now."""
        if self._opening:
            return self._open()
        if self._unasked:
            self._learn_ends()
        piece = self.follower.piece(self)
        if piece is None:
            # What the follower is about to reach is read from there: it has passing entries too.
            return not self.follower.will_reach(self.epoch, self.position) and self._read_older()
        if piece.position == self.position:
            self._caught_up_at = self.position
            return False
        self._take(piece)
        return True

    def _read_older(self) -> bool:
        try:
            piece = self.follower.older.piece(self.view, self.epoch, self.position)
        except HistoryLost:
            self._lose()
            return not self._opening
        except BrokerUnavailable:
            # The follower has logged it, or will; nothing is lost by trying again.
            self._away = True
            return False
        except HubClosed:
            return False
        self._away = False
        self.follower.reached()
        if piece is None:
            self._caught_up_at = self.position
            return False
        self._take(piece)
        return True

    def _take(self, piece: Piece) -> None:
        self.epoch, self.position = piece.epoch, piece.position
        if piece.position == self.follower.recent.end:
            self._caught_up_at = piece.position
        if not piece.entries:
            return
        self._ready = piece
        if self.ended:
            # An event after the end: the channel was reopened.
            for entry in piece.entries:
                self.ended.pop(entry.channel, None)
        if is_end(piece.entries[-1]):
            self.ended[piece.entries[-1].channel] = piece.entries[-1]
        self.finished = self.view.is_finished(self.ended)

    def _read_opening(self) -> Opening:
        view, broker = self.view, self.follower.broker
        if self._replay is not None or not view.internal:
            return broker.opening(view.channels, self._replay)
        # Trimmed leaves are no lost history.  The members are read second: what changes between
        # the two comes once more after the opening, and says the same.
        own = {channel for channel in view.channels if channel.startswith(INTERNAL)}
        opening = broker.opening(view.channels - own, None)
        members = broker.opening(own, 0).state
        return opening._replace(state=[*opening.state, *members])

    def _open(self) -> bool:
        """Begin at the log's end; false if it cannot be reached just now."""
        try:
            opening = self._read_opening()
        except (BrokerUnavailable, HubClosed):
            self._away = True
            return False
        self._away = self._opening = False
        self.follower.reached()
        self.lost = self.lost or (self._replay is None and not opening.complete)
        entries: list[Entry] = []
        if self.lost:
            self.follower.counts.add("resets")
            entries.append(reset_entry(opening.tip))
        entries += map(without_id, opening.state)
        entries += opening.history
        entries.append(open_entry(opening.tip))
        entries += map(without_id, sorted(opening.ends.values(), key=lambda end: parse_id(end.id)))
        self.epoch, self.position = parse_id(opening.tip)
        self._caught_up_at = self.position
        self._ready = Piece(self.view, entries, self.epoch, self.position)
        self.ended = dict(opening.ends)
        self.finished = self.view.is_finished(self.ended)
        return True


def _ended_by(ends: Mapping[str, Entry], position: int) -> dict[str, Entry]:
    return {channel: end for channel, end in ends.items() if parse_id(end.id)[1] <= position}
