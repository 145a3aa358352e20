"""What a hub has open in this process: the log, the follower that reads it, and the leases.

A `Hub` that is dropped is collected, and closes this.  So nothing here refers to the hub, but for
what keeps it alive on purpose: its open streams and subscriptions.
"""

from __future__ import annotations

import os
import time

from ssekit.brokers import Broker, parse_id
from ssekit.brokers.contract import RECENT
from ssekit.errors import HubClosed
from ssekit.host.counting import Counts
from ssekit.host.wakeup import NativeLock
from ssekit.hub.access import Access
from ssekit.hub.follower import Follower
from ssekit.hub.lease import Leases
from ssekit.hub.presence import Presence
from ssekit.hub.revocations import Revocations

OUTRUN = 1.0
"""Seconds at most for which a publish waits for the readers of its own process."""
SETTLED = 5.0
"""Seconds after which a process that only publishes looks after leases too; scripts end before."""


class Opened:
    """The parts of one hub in this process; made when they are first needed."""

    def __init__(self, broker: Broker, counts: Counts, *, ends_in_outage: bool = False) -> None:
        self.broker = broker
        self.counts = counts
        self._ends_in_outage = ends_in_outage
        self._made_at = time.monotonic()
        self._closed = False
        self._follower: Follower | None = None
        self._leases: Leases | None = None
        self._access: Access | None = None
        self._revocations: Revocations | None = None
        self._presence: Presence | None = None
        self._lock = NativeLock()  # held for moments, by any thread

    def follower(self) -> Follower:
        """Return the follower of this process, which is running.  Raises `HubClosed`."""
        running = self._follower
        if running is not None and not self._closed and running.process == os.getpid():
            return running
        self.leases()
        with self._lock:
            self.check()
            # A thread does not survive a fork.
            if self._follower is None or self._follower.process != os.getpid():
                self._follower = Follower(self.broker, self.counts)
            follower = self._follower
        self.counts.begin()
        follower.start()
        return follower

    def access(self) -> Access:
        """Return the register of this process's streams that have a grant.  Raises `HubClosed`."""
        follower, known = self.follower(), self._access
        if known is not None and known.follower is follower:
            return known
        revocations = self.revocations()
        with self._lock:
            if self._access is None or self._access.follower is not follower:
                self._access = Access(revocations, follower, ends_in_outage=self._ends_in_outage)
            return self._access

    def revocations(self) -> Revocations:
        """Return what writes revocations, which needs no follower.  Raises `HubClosed`."""
        with self._lock:
            self.check()
            if self._revocations is None or self._revocations.process != os.getpid():
                self._revocations = Revocations(self.broker)
            return self._revocations

    def presence(self) -> Presence:
        """Return what has members present for this process.  Raises `HubClosed`."""
        follower = self.follower()
        leases = self.leases()
        with self._lock:
            if self._presence is None or self._presence.follower is not follower:
                self._presence = Presence(self.broker, leases, follower)
            return self._presence

    def leases(self) -> Leases:
        """Return what renews this process's lease and looks at the others'.  Raises `HubClosed`."""
        with self._lock:
            self.check()
            if self._leases is None or self._leases.process != os.getpid():
                self._leases = Leases(self.broker)
            leases = self._leases
        leases.start()
        return leases

    def count_published(self, channel: str, seconds: float) -> None:
        """Count an event that was published: with those that are sent, where that is done later."""
        follower = self._follower
        if follower is not None and follower.tally.later and follower.process == os.getpid():
            follower.tally.published.append((channel, seconds))
        else:
            self.counts.published(channel, seconds)

    def published(self, cursor: str) -> None:
        """Wait for this process's own reading, if an entry is half of what it keeps ahead of it.

        Under gevent nothing else runs while a greenlet publishes in a loop, and its viewers would
        lose what is trimmed meanwhile.
        """
        if self._leases is None and time.monotonic() - self._made_at > SETTLED:
            self.leases()
            self.counts.begin()
        follower = self._follower
        if follower is None:
            return
        epoch, seq = follower.published = parse_id(cursor)
        if follower.away:
            follower.reached()
            return
        deadline = time.monotonic() + OUTRUN
        while follower.is_behind(epoch, seq - RECENT // 2) and time.monotonic() < deadline:
            time.sleep(0.001)

    def check(self) -> None:
        """Raise `HubClosed` after `close`."""
        if self._closed:
            raise HubClosed("the hub is closed")

    def close(self) -> None:
        """End every stream and subscription of this process, and close the log."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            follower, self._follower = self._follower, None
            leases, self._leases = self._leases, None
            presence, self._presence = self._presence, None
        if presence is not None:
            presence.close()
        if leases is not None:
            leases.close(run_out=presence is not None and presence.holds)
        if follower is not None:
            follower.close()
        self.broker.close()
        self.counts.end()
