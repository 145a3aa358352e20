"""Who may go on reading in this process: open grants, revocations, and what an outage does to them.

A hub makes one `Access` for each process when its first endpoint is used.  It is the listener of
the internal channel of revocations, and the register of the streams that they end.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from ssekit.brokers import Entry
from ssekit.errors import BrokerUnavailable, HubClosed
from ssekit.hub.follower import Follower
from ssekit.hub.granted import GrantedStream
from ssekit.hub.revocations import CHANNEL, Revocations
from ssekit.stream.admission import Overloaded

OUTAGE = "the log of revocations is away"
"""Why streams end, and are not opened, while revocations cannot be read."""


class Access:
    """The streams of one hub in this process that have a grant.

    ``ends_in_outage``: whether they end while the log cannot be read.
    """

    def __init__(
        self, revocations: Revocations, follower: Follower, *, ends_in_outage: bool
    ) -> None:
        self.streams = revocations.streams
        self._revocations = revocations
        self.follower = follower
        self._ends_in_outage = ends_in_outage
        self._loading = threading.Lock()
        follower.internal[CHANNEL] = self
        follower.revokes = True

    def add(self, stream: GrantedStream) -> None:
        """Take a stream that is about to open, until its `close`."""
        stream.enter(self.streams)

    def load(self) -> None:
        """Read what is in force, unless this process knows it.

        Raises `Overloaded` while that cannot be read.
        """
        if self._revocations.loaded:
            return
        with self._loading:  # One reads, and the others wait for it.
            if self._revocations.loaded:
                return
            try:
                self._revocations.restart()
            except (BrokerUnavailable, HubClosed) as error:
                raise Overloaded(OUTAGE) from error

    def refusal(self, stream: GrantedStream) -> str | None:
        """Return why a stream must not open, or None.

        Raises `Overloaded` while that cannot be known.
        """
        if self._ends_in_outage and self.follower.away:
            raise Overloaded(OUTAGE)
        self.load()
        return stream.ended or self._revocations.refusal(stream)

    def take(self, entries: Sequence[Entry]) -> None:
        """Apply new entries of the internal channel."""
        self._revocations.take(entries)

    def restart(self) -> None:
        """Read what is in force again: entries may have been missed."""
        self._revocations.restart()

    def away(self) -> None:
        """The log cannot be read just now."""
        if self._ends_in_outage:
            self.streams.end_all(OUTAGE)
