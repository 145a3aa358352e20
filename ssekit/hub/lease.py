"""How a process shows that it is alive, and ends what a process has left that is not.

A process that produces channels, or has members present, has one lease for each of its hubs, and
renews it beside its work: in a thread of the system's, also under gevent, so that work that never
waits is not taken for dead.  The same thread looks at the leases of other processes.  One that was
not renewed for a whole `TERM`, as seen from here, is ended, and so is what it held.

A log has no clock, and clocks of several machines differ, so nothing but renewals is compared.  Nor
does a look count that comes long after the one before: this process, or the log, was away.
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import threading
import time
from _queue import Empty, SimpleQueue  # The interpreter's own, which gevent leaves alone.
from collections.abc import Callable
from contextlib import suppress

from ssekit import host
from ssekit.brokers import Broker
from ssekit.errors import BrokerUnavailable, HubClosed
from ssekit.host.wakeup import NativeLock
from ssekit.host.wsgi_servers import worker_is_ending
from ssekit.hub.entries import LOST, end_body, leave_body

log = logging.getLogger("ssekit.hub")

BEAT = 3.0
"""Seconds between two renewals of a lease."""
TERM = 9.0
"""Seconds without a renewal after which a lease is ended."""
LOOK = 2.0
"""Seconds between two looks at the leases of others; twice that is too long for a look to count."""
AGAIN = 0.5
"""Seconds until a renewal that failed is tried again."""
AT_ONCE = 500
"""Members that one call has join or leave: other processes follow in pieces that they can take."""
ENDING_CHECKED = 0.2
"""Seconds between two checks whether the server has told this process to end."""


class Leases:
    """This process's lease in one log, and its view of the others'."""

    def __init__(self, broker: Broker) -> None:
        self.process = os.getpid()
        self.producing: dict[str, object] = {}
        """By channel, who produces it in this process."""
        self.on_lost: list[Callable[[], None]] = []
        """Called, in any thread, when the lease was ended: what it held has to be held again."""
        self._broker = broker
        self._lock = NativeLock()  # held for moments, by any thread
        self._beginning = threading.Lock()  # so that one begins a lease, and the others wait
        self._holder: str | None = None  # None while we have no lease
        self._holds = 0
        self._wake: SimpleQueue[bool] = SimpleQueue()  # true: stop
        self._started = False
        self.closed = False
        self._seen: dict[str, tuple[int, float]] = {}  # by holder, its beats and since when
        self._looked_at = -math.inf

    def start(self) -> None:
        """Begin to look, if that has not been asked for before."""
        with self._lock:
            started, self._started = self._started, True
        if not started:
            host.begin_natively(self._run)

    def hold(self) -> str:
        """Return this process's lease for one thing more that it holds.

        Raises what `Broker.beat` raises.
        """
        with self._lock:
            self._holds += 1
            first = self._holds == 1
        try:
            holder = self.renewed()
        except BaseException:
            self.release()
            raise
        if first:
            atexit.register(self._end_channels)
            self._wake.put(False)
        return holder

    def renewed(self) -> str:
        """Return this process's lease, renewed; a new one if it was ended.

        Raises what `Broker.beat` raises.
        """
        with self._beginning:
            holder = self._holder
            if holder is not None and self._broker.beat(holder):
                return holder
            new = os.urandom(12).hex()
            self._broker.beat(new, first=True)
            self._holder = new
        if holder is not None:
            self._tell_lost()
        return new

    def release(self) -> None:
        """Hold one thing less; without any, the lease is ended before long."""
        with self._lock:
            self._holds -= 1
            last = not self._holds
        if last:
            atexit.unregister(self._end_channels)
            self._wake.put(False)

    def close(self, *, run_out: bool = False) -> None:
        """Stop, and end what this process produces.

        ``run_out``: what else the lease holds is there until the lease has run out.
        """
        if self.process != os.getpid() or self.closed:
            return
        self.closed = True
        self._wake.put(True)
        self._end_channels()
        if not run_out:
            self._end_own_lease()

    def _run(self) -> None:
        beat_at = look_at = time.monotonic() + LOOK
        while not self.closed:
            now = time.monotonic()
            if self._holds and now >= beat_at:
                beat_at = now + (BEAT if self._try(self._beat) else AGAIN)
            elif self._holder is not None and not self._holds:
                self._try(self._end_own_lease)
            if now >= look_at:
                look_at = now + LOOK
                if not self._try(self._look):
                    self._seen.clear()  # After an outage each has a full term again.
            if self._holds and worker_is_ending():
                self._try(self._end_channels)
            soonest = min(look_at, beat_at) if self._holds else look_at
            pause = max(soonest - time.monotonic(), 0.0)
            with suppress(Empty):
                self._wake.get(timeout=min(pause, ENDING_CHECKED) if self._holds else pause)

    def _try(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except (BrokerUnavailable, HubClosed):
            return False  # The follower logs an outage; the next attempt is soon.
        except Exception:
            log.exception("the hub could not look after its leases")
            return False
        return True

    def _beat(self) -> None:
        holder = self._holder
        if holder is not None and not self._broker.beat(holder):
            # It was ended while this process was away: what it held is no longer its own.
            log.warning("this process was taken for dead: the channels it produced have ended")
            with self._lock:
                lost = self._holder == holder
                if lost:
                    self._holder = None
            if lost:
                self._tell_lost()

    def _tell_lost(self) -> None:
        for lost in self.on_lost:
            lost()

    def _end_own_lease(self) -> None:
        with self._lock:
            if self._holds and not self.closed:
                return
            holder, self._holder = self._holder, None
        if holder is not None:
            self._broker.end_lease(holder, self._broker.leases().get(holder, 0))

    def _end_channels(self) -> None:
        """End what this process produces: it is about to end."""
        if self.process == os.getpid() and self._holder is not None:
            with suppress(BrokerUnavailable, HubClosed):
                end_held(self._broker, self._holder, members=False)

    def _look(self) -> None:
        """Look at the leases of the others, and end those that were not renewed for a term."""
        now = time.monotonic()
        beats = self._broker.leases()
        if now - self._looked_at > 2 * LOOK:
            self._seen.clear()  # This process was away, and has missed what there was to see.
        self._looked_at = now
        self._seen = {holder: seen for holder, seen in self._seen.items() if holder in beats}
        for holder, count in beats.items():
            if holder == self._holder:
                continue
            if count < 0:
                end_held(self._broker, holder)
                continue
            seen, since = self._seen.setdefault(holder, (count, now))
            if seen != count:
                self._seen[holder] = (count, now)
            elif now - since >= TERM and self._broker.end_lease(holder, count):
                log.warning("a process has died: the channels that it produced have ended")
                end_held(self._broker, holder)


def end_held(broker: Broker, holder: str, *, members: bool = True) -> None:
    """End what a lease holds: its channels with "lost", and its members leave."""
    leaving: dict[str, list[str]] = {}
    for channel, member in broker.held(holder):
        if member is None:
            broker.finish(channel, end_body(channel, LOST), LOST, holder=holder)
        elif members:
            leaving.setdefault(channel, []).append(member)
    for channel, names in leaving.items():
        joined = {entry.key: entry.body for entry in broker.opening([channel], 0).state}
        for first in range(0, len(names), AT_ONCE):
            some = names[first : first + AT_ONCE]
            bodies = {name: leave_body(joined.get(name, b"")) for name in some}
            broker.leave(channel, bodies, holder)
