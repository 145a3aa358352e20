"""A process's one reading of the log: the recent entries in memory, and readers that wait for more.

However many clients a process has, one thread (a greenlet, where threads are gevent's) follows the
broker and fills the `RecentEntries`.  Readers read from there, and from the broker what is older.
A reader that has read everything *parks*: from then on it has no position to keep, as it is at the
end of the log, and entries of channels that it does not want cost it nothing.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Protocol

from ssekit import host
from ssekit.brokers import Broker, Entry, HistoryLost, Retention
from ssekit.brokers.contract import RECENT
from ssekit.errors import BrokerUnavailable, HubClosed
from ssekit.host.backoff import Backoff
from ssekit.host.counting import Counts
from ssekit.host.wakeup import NativeLock
from ssekit.hub.entries import is_end
from ssekit.hub.older import OlderEntries
from ssekit.hub.pieces import Piece, View
from ssekit.hub.recent import RecentEntries
from ssekit.hub.tally import Tally

log = logging.getLogger("ssekit.hub")

FOLLOW = 30.0
"""Seconds after which the follower asks the broker again."""
SOONEST, LONGEST = 0.1, 5.0
"""Seconds until the first attempt after an outage began, and the most between two attempts."""
OPEN_REMEMBERED = 100_000
"""Channels of which it is remembered that they are not finished."""


class Parked(Protocol):
    """A reader, as the follower sees it."""

    view: View
    epoch: int
    position: int
    live: int
    """The last entry that came while it kept up: it gets each one up to there."""
    parked: bool
    """Whether the follower knows its position, and not the reader itself."""

    def wake(self) -> None:
        """There is something to read, or the hub is closed."""

    def keeps(self, end: int) -> tuple[int, int]:
        """Return up to where it gets every entry, and up to where every passing one.

        ``end`` is the position of the newest.
        """


class Distributor(Protocol):
    """Serves many clients by itself, and is told first."""

    def deliver(self, entries: Sequence[Entry]) -> None:
        """These entries have just been added to the recent ones."""

    def restart(self, epoch: int, position: int) -> None:
        """The recent entries are about to begin anew: this is where those caught up are."""

    def end_all(self) -> None:
        """The hub is closed."""


class Internal(Protocol):
    """What the entries of one of the hub's own channels are for, in this process."""

    def take(self, entries: Sequence[Entry]) -> None:
        """These entries have come.  Nobody has what came after them in the log yet."""

    def restart(self) -> None:
        """Entries may have been missed.  Raises what reading the log raises; it is tried again."""

    def away(self) -> None:
        """The log cannot be read just now."""


class Follower:
    """Follows a broker for one process, once it was started."""

    def __init__(self, broker: Broker, counts: Counts | None = None) -> None:
        self.process = os.getpid()
        self.counts = counts or Counts()
        self.broker = broker
        self.recent = RecentEntries(RECENT)
        self.older = OlderEntries(broker)
        self.tally = Tally(self.counts, self.recent)
        self.ready = False
        """Whether the recent entries reach the log's end, or did when it was last reached."""
        self.closed = False
        self.away = False
        """Whether the broker could not be reached just now."""
        self.distributor: Distributor | None = None
        self.published = (-1, -1)
        """Epoch and position of the last entry that this process has published."""
        self.internal: dict[str, Internal] = {}
        """By internal channel, what its entries are handed to, in the follower's thread."""
        self.revokes = False
        """Whether entries of an internal channel end streams."""
        self._retention = Retention()
        self._lock = NativeLock()  # held for moments, by any thread
        self._parked: defaultdict[str, set[Parked]] = defaultdict(set)  # by channel
        self._waiting: set[Parked] = set()  # for the follower to be ready
        self._woken: set[Parked] = set()  # that have not had their turn to read
        self._open: set[str] = set()  # channels that are not finished
        self._ends = 0  # that were seen
        self._backoff = Backoff(SOONEST, LONGEST)
        self._again_now = threading.Event()
        self._tried_at = 0.0  # on the monotonic clock
        self._started = False

    def start(self) -> None:
        """Begin to follow, if that has not been asked for before."""
        with self._lock:
            started, self._started = self._started, True
        if not started:
            # Not while holding the lock: a thread that starts lets others run.
            host.begin(self._run, "ssekit-follower")

    def is_behind(self, epoch: int, position: int) -> bool:
        """Return whether a position of the log that it follows is still to be read."""
        return (
            self.ready
            and not self.closed
            and self.process == os.getpid()
            and self.recent.epoch == epoch
            and self.recent.end < position
        )

    def resume(self, view: View, epoch: int, position: int) -> set[str] | None:
        """Return the channels of a view that have entries after a position.

        None unless all that follows the position is here and in the log, as far as this process can
        know: it knows what it has published itself.
        """
        with self._lock:
            if self.recent.is_ahead(*self.published):
                return None
            return self.recent.resume(view, epoch, position, self._retention)

    def reached(self) -> None:
        """Try again at once if the broker was away: another part of the hub has reached it."""
        if self.away and time.monotonic() - self._tried_at > SOONEST:
            self._again_now.set()

    def will_reach(self, epoch: int, position: int) -> bool:
        """Return whether a position is to become one of the recent ones before long."""
        with self._lock:
            return not self.away and (not self.ready or self.recent.is_ahead(epoch, position))

    def holds_back(self, epoch: int, position: int) -> bool:
        """Return whether what was read from the broker up to a position must not be sent yet.

        What is to end the stream may be among it, and this process has yet to read that.
        """
        return self.revokes and self.recent.is_ahead(epoch, position)

    def piece(self, reader: Parked) -> Piece | None:
        """Return what follows a reader's position; None if it is not among the recent entries.

        A piece that ends where it begins says that there is nothing more.
        """
        with self._lock:
            self._woken.discard(reader)
            recent, position = self.recent, reader.position
            if not recent.holds(reader.epoch, position):
                return None
            if position == recent.end:
                return Piece(reader.view, (), reader.epoch, position)
            return recent.piece(reader.view, position, *reader.keeps(recent.end))

    def ends(self, channels: Collection[str], epoch: int, position: int) -> dict[str, Entry]:
        """Return the ends of those channels that are finished, for a reader at a position.

        Raises as `Broker.ends` does.
        """
        with self._lock:
            # What is open here may have ended before a position that is yet to be reached.
            known = set() if self.recent.is_ahead(epoch, position) else self._open
            unknown = [channel for channel in channels if channel not in known]
            seen = self._ends
        if not unknown or self.closed:
            return {}
        found = self.broker.ends(unknown)
        with self._lock:
            if seen == self._ends and self.ready:
                if len(self._open) > OPEN_REMEMBERED:
                    self._open.clear()
                self._open.update(channel for channel in unknown if channel not in found)
        return found

    def park(self, reader: Parked) -> bool:
        """Wake the reader when there is something for it; false if there is already."""
        with self._lock:
            if self.closed or (self.ready and reader.epoch < 0):
                return False
            if not self.recent.holds(reader.epoch, reader.position):
                # It is before the follower's first reading, or ahead of it: it looks again then.
                self._waiting.add(reader)
            elif reader.position < self.recent.end:
                return False
            else:
                for channel in reader.view.channels:
                    self._parked[channel].add(reader)
            reader.parked = True
            return True

    def unpark(self, reader: Parked) -> None:
        """Undo `park`; the reader's position is then where it would have read on."""
        with self._lock:
            if reader.parked and reader not in self._waiting:
                self._remove(reader)
                reader.epoch, reader.position = self.recent.epoch, self.recent.end
            self._waiting.discard(reader)
            reader.parked = False

    def forget(self, reader: Parked) -> None:
        """Forget a reader that is closed."""
        if reader.parked:
            self.unpark(reader)
        if reader in self._woken:  # Most never waited: they were taken over at once.
            with self._lock:
                self._woken.discard(reader)

    def close(self) -> None:
        """Wake all readers; they find the follower closed."""
        if self.process != os.getpid():
            return  # The streams are those of the process that this one was forked from.
        with self._lock:
            self.closed = True
            readers = self._all_readers()
        self._again_now.set()
        if self.distributor is not None:
            self.distributor.end_all()
        for reader in readers:
            reader.wake()

    def _remove(self, reader: Parked) -> None:
        for channel in reader.view.channels:
            parked = self._parked.get(channel)
            if parked is not None:
                parked.discard(reader)
                if not parked:
                    del self._parked[channel]

    def _unwait(self) -> list[Parked]:
        """Take the readers that wait for the follower to be ready."""
        waiting, self._waiting = self._waiting, set()
        for reader in waiting:
            reader.parked = False
        return list(waiting)

    def _unpark(self, channels: Collection[str], epoch: int, position: int) -> list[Parked]:
        """Take the readers that are parked at some channels; this is their position from now on."""
        found: list[Parked] = []
        for channel in channels:
            parked = self._parked.pop(channel, ())
            for reader in parked:
                if len(reader.view.channels) > 1:
                    self._remove(reader)
                reader.epoch, reader.position = epoch, position
                reader.parked = False
            found += parked
        return found

    def _all_readers(self) -> list[Parked]:
        recent = self.recent
        return self._unwait() + self._unpark(list(self._parked), recent.epoch, recent.end)

    def _run(self) -> None:
        while not self.closed:
            try:
                self._follow()
            except HistoryLost as error:
                self._again("the hub has fallen behind its log: %s", error)
            except HubClosed:
                return  # By close(), which has woken all readers.
            except BrokerUnavailable as error:
                self._pause("the hub's broker is away, its streams stay open: %s", error)
            except Exception as error:
                self._pause("the hub cannot follow its log: %s", error, traceback=True)

    def _follow(self) -> None:
        if not self.ready:
            self._retention = self.broker.retention()
            self._restart(*self.broker.recent(RECENT))
        self._tried_at = time.monotonic()
        entries, _ = self.broker.follow(self.recent.tip, 0.0 if self.away else FOLLOW)
        if self.away:
            log.info("the hub's broker is back")
            self.away = False
            self.counts.set("away", 0)
        self.older.forget_stale()
        if not entries:
            self._backoff.reset()
            return
        try:
            self._take(entries)
        except Exception as error:
            self._again("the hub could not take entries: %s", error, traceback=True)
        else:
            self._backoff.reset()
        host.let_others_run()

    def _again(self, text: str, error: Exception, *, traceback: bool = False) -> None:
        """Begin with the log's newest entries again; at once, unless that has not helped."""
        self.ready = False
        first = not self._backoff.failures
        wait = self._backoff.next()
        if traceback or not first:
            log.error(text, error, exc_info=error if traceback else None)
        if not first:
            self._wait(wait)

    def _pause(self, text: str, error: Exception, *, traceback: bool = False) -> None:
        """Wait for the broker to come back; it is logged once."""
        if not self.away:
            self.away = True
            self.counts.add("outages")
            self.counts.set("away", 1)
            log.log(
                logging.ERROR if traceback else logging.WARNING,
                text,
                error,
                exc_info=error if traceback else None,
            )
            for internal in list(self.internal.values()):
                internal.away()
        self._wait(self._backoff.next())

    def _wait(self, seconds: float) -> None:
        self._again_now.wait(seconds)
        if not self.closed:
            self._again_now.clear()

    def _restart(self, entries: Sequence[Entry], cursor: str) -> None:
        for internal in list(self.internal.values()):
            internal.restart()
        with self._lock:
            readers = self._all_readers()
            self._woken.clear()
            self._open.clear()
            self._ends += 1
            epoch, position = self.recent.epoch, self.recent.end
        if self.distributor is not None:
            self.distributor.restart(epoch, position)
        with self._lock:
            self.recent.reset(entries, cursor)
            self.ready = True
        self.tally.note_position()
        for reader in readers:
            reader.live = 0
            reader.wake()

    def _take(self, entries: Sequence[Entry]) -> None:
        channels = {entry.channel for entry in entries}
        for channel in channels & self.internal.keys():
            # First: a revocation ends streams before they get what was published after it.
            self.internal[channel].take([entry for entry in entries if entry.channel == channel])
        ended = [entry.channel for entry in entries if is_end(entry)]
        with self._lock:
            epoch, before = self.recent.epoch, self.recent.end
            self.recent.extend(entries)
            self._ends += len(ended)
            self._open.difference_update(ended)
            woken = self._unwait()
            kept_up = self._unpark(channels, epoch, before)
            self._woken.update(kept_up)
            for reader in self._woken:
                reader.live = self.recent.end
        try:
            self._deliver(entries)
        finally:
            for reader in woken + kept_up:
                with suppress(Exception):
                    reader.wake()
            self.tally.took(entries)

    def _deliver(self, entries: Sequence[Entry]) -> None:
        if self.distributor is not None:
            try:
                self.distributor.deliver(entries)
            except Exception:
                # Some have them and some have not: all come back, and read after their last id.
                self.distributor.end_all()
                raise
