"""A process's one reading of the log: the newest entries in memory, and whoever waits for more.

However many viewers a process has, one thread (a greenlet, where threads are gevent's) follows the
broker and fills one `Ring`.  Subscriptions read from the ring, and from the broker what is older.
A subscription that has read everything *parks*: from then on it has no position to keep, as it
stands at the end of the log, and entries of channels that it does not want pass it by for nothing.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol

from ssekit import host
from ssekit.brokers import Broker, Entry, HistoryLost
from ssekit.errors import BrokerUnavailable, HubClosed
from ssekit.host.wakeup import NativeLock
from ssekit.hub.recent import Piece, Ring

log = logging.getLogger("ssekit.hub")

FOLLOW = 30.0
"""Seconds after which the tail asks the broker anew."""
SOONEST, LONGEST = 0.1, 5.0
"""Seconds until the first try after an outage began, and the most between two tries."""


class Parked(Protocol):
    """A subscription, as the tail sees it."""

    channels: frozenset[str]
    epoch: int
    position: int
    parked: bool
    """Whether the tail has it, and its position is the tail's to know."""

    def wake(self) -> None:
        """There is something to read, or the hub is closed."""


class Listener(Protocol):
    """Whoever serves many viewers by itself, and is told first."""

    def deliver(self, entries: Sequence[Entry]) -> None:
        """The ring has just taken these."""

    def restart(self) -> None:
        """The ring has begun anew: positions in it mean nothing any more."""

    def end_all(self) -> None:
        """The hub is closed."""


class Tail:
    """Follows a broker for one process, once it was started."""

    def __init__(self, broker: Broker, size: int) -> None:
        self.process = os.getpid()
        self.ring = Ring(size)
        self.ready = False
        """Whether the ring stands at the log's end, or did when the broker was last reached."""
        self.closed = False
        self.away = False
        """Whether the broker could not be reached just now."""
        self.listener: Listener | None = None
        self._broker = broker
        self._lock = NativeLock()  # held for moments, by any thread
        self._parked: defaultdict[str, set[Parked]] = defaultdict(set)  # by channel
        self._waiting: set[Parked] = set()  # those who wait for the tail to be ready
        self._stop = threading.Event()
        self._started = False

    def start(self) -> None:
        """Begin to follow, if nobody has said so before."""
        with self._lock:
            started, self._started = self._started, True
        if not started:
            # Not under the lock: a thread that starts lets others run.
            host.begin(self._run, "ssekit-tail")

    def tip(self) -> str | None:
        """Return the cursor at the end of the ring, or None before the broker was first reached."""
        with self._lock:
            return self.ring.tip if self.ready else None

    def holds(self, epoch: int, position: int) -> bool:
        """Tell whether a position is in the ring, so that what comes behind it is."""
        return self.ring.holds(epoch, position)

    def lags(self, epoch: int, position: int) -> bool:
        """Tell whether a position of the log that it follows is still to be read."""
        return (
            self.ready
            and not self.closed
            and self.process == os.getpid()
            and self.ring.epoch == epoch
            and self.ring.end < position
        )

    def read(self, epoch: int, position: int, most: int) -> Sequence[Entry] | None:
        """Return up to ``most`` entries behind a position, or None if the ring has not got them."""
        with self._lock:
            if not self.holds(epoch, position):
                return None
            return self.ring.between(position, min(position + most, self.ring.end))

    def piece(self, channels: frozenset[str], epoch: int, position: int) -> Piece | None:
        """Return what follows a position as one block, or None if the ring has not got it."""
        with self._lock:
            if not self.ring.holds(epoch, position):
                return None
            if position == self.ring.end:
                return Piece(0, b"", epoch, position)
            return self.ring.piece(channels, position)

    def park(self, subscription: Parked) -> bool:
        """Wake the subscription when there is something for it; false if there is already."""
        with self._lock:
            if self.closed or (self.ready and subscription.epoch < 0):
                return False
            if not self.ring.holds(subscription.epoch, subscription.position):
                # It is before the tail's first reading, or ahead of it: it looks again then.
                self._waiting.add(subscription)
            elif subscription.position < self.ring.end:
                return False
            else:
                for channel in subscription.channels:
                    self._parked[channel].add(subscription)
            subscription.parked = True
            return True

    def unpark(self, subscription: Parked) -> None:
        """Take back `park`; the subscription then stands where it would have read on."""
        with self._lock:
            if subscription.parked and subscription not in self._waiting:
                self._remove(subscription)
                self._stand(subscription, self.ring.epoch, self.ring.end)
            self._waiting.discard(subscription)
            subscription.parked = False

    def close(self) -> None:
        """Wake everybody; they find the tail closed."""
        with self._lock:
            self.closed = True
            everybody = self._everybody()
        self._stop.set()
        if self.listener is not None:
            self.listener.end_all()
        for subscription in everybody:
            subscription.wake()

    @staticmethod
    def _stand(subscription: Parked, epoch: int, position: int) -> None:
        subscription.epoch = epoch
        subscription.position = position
        subscription.parked = False

    def _remove(self, subscription: Parked) -> None:
        for channel in subscription.channels:
            parked = self._parked.get(channel)
            if parked is not None:
                parked.discard(subscription)
                if not parked:
                    del self._parked[channel]

    def _looking_again(self) -> list[Parked]:
        """Take those who wait for the tail to be ready."""
        waiting, self._waiting = self._waiting, set()
        for subscription in waiting:
            subscription.parked = False
        return list(waiting)

    def _behind(self, epoch: int, position: int, channels: set[str]) -> list[Parked]:
        """Take those who are parked at some channels: they stand at a position from now on."""
        found: list[Parked] = []
        for channel in channels:
            parked = self._parked.pop(channel, ())
            for subscription in parked:
                if len(subscription.channels) > 1:
                    self._remove(subscription)
                self._stand(subscription, epoch, position)
            found += parked
        return found

    def _everybody(self) -> list[Parked]:
        ring = self.ring
        return self._looking_again() + self._behind(ring.epoch, ring.end, set(self._parked))

    def _run(self) -> None:
        tries = 0  # since the broker was last reached
        while not self.closed:
            try:
                if not self.ready:
                    self._restart(self._broker.tip())
                entries, _ = self._broker.follow(self.ring.tip, FOLLOW)
            except HistoryLost:
                self.ready = False
                time.sleep(0)
                continue
            except HubClosed:
                return  # By close(), which has woken everybody.
            except Exception as error:
                self.away = True
                if not tries:
                    _log_outage(error)
                tries += 1
                longest = min(LONGEST, SOONEST * 2.0 ** min(tries, 16))
                self._stop.wait(random.uniform(longest / 2, longest))  # noqa: S311
                continue
            if tries:
                log.info("the hub's broker is back")
                tries = 0
                self.away = False
            if entries:
                self._take(entries)
                # One turn of the event loop between two batches: others want to run as well.
                time.sleep(0)

    def _restart(self, cursor: str) -> None:
        with self._lock:
            everybody = self._everybody()
            self.ring.reset(cursor)
            self.ready = True
        if self.listener is not None:
            self.listener.restart()
        for subscription in everybody:
            subscription.wake()

    def _take(self, entries: Sequence[Entry]) -> None:
        with self._lock:
            epoch, before = self.ring.epoch, self.ring.end
            self.ring.extend(entries)
            woken = self._looking_again()
            woken += self._behind(epoch, before, {entry.channel for entry in entries})
        if self.listener is not None:
            try:
                self.listener.deliver(entries)
            except Exception:
                log.exception("a delivery failed in the middle; its viewers come back and resume")
                self.listener.restart()
        for subscription in woken:
            subscription.wake()


def _log_outage(error: Exception) -> None:
    text = "the hub's broker is away, its streams stay open: %s"
    if isinstance(error, BrokerUnavailable):
        log.warning(text, error)
    else:
        log.error(text, error, exc_info=error)
