"""The open streams of one process that have a grant, found by who reads them, and ended by it.

An endpoint adds a stream when it opens and removes it when it ends; revocations and the expiry of
grants end streams here.  However a stream is served, it has a function that ends it between two
events.  One heap holds when grants expire, and one sweep a second looks at its top: no timer for
each stream.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable, Iterable

from ssekit import host
from ssekit.host.wakeup import NativeLock
from ssekit.hub.grant import Grant

SWEEP = 0.5
"""Seconds between two looks at which grants have expired."""
EXPIRED = "grant expired"
REVOKED = "revoked"
DISCONNECTED = "disconnected by the application"


class GrantedStream:
    """One open stream, with the grant that it was opened with.

    ``begun`` is when its authorization began, in seconds since 1970.
    """

    __slots__ = ("_register", "begun", "channels", "end", "ended", "grant")

    def __init__(self, grant: Grant, channels: frozenset[str], begun: float) -> None:
        self.grant = grant
        self.channels = channels
        self.begun = begun
        self.ended: str | None = None
        """Why it has to end, once it has to: nothing may be sent from then on."""
        self.end: Callable[[str], None] | None = None
        """Ends the stream where it is served; set by the server of its blocks."""
        self._register: GrantedStreams | None = None

    def stop(self, why: str) -> None:
        """End the stream; a second call does nothing."""
        if self.ended is None:
            self.ended = why
            if self.end is not None:
                self.end(why)

    def enter(self, register: GrantedStreams) -> None:
        """Be found in a register, until `close`."""
        self._register = register
        register.add(self)

    def close(self) -> None:
        """The stream has ended, or was not opened."""
        if self._register is not None:
            self._register.discard(self)


class GrantedStreams:
    """The open streams of one hub in this process that have a grant."""

    def __init__(self) -> None:
        self._lock = NativeLock()  # held for moments, by any thread
        self._all: set[GrantedStream] = set()
        self._by_subject: dict[str, set[GrantedStream]] = {}
        self._by_session: dict[str, set[GrantedStream]] = {}
        self._expiring: list[tuple[float, int, GrantedStream]] = []
        self._count = itertools.count()
        self._sweeping = False

    def __len__(self) -> int:
        return len(self._all)

    def add(self, stream: GrantedStream) -> None:
        """Take an open stream, until `discard`."""
        expires = stream.grant.expires
        with self._lock:
            self._all.add(stream)
            for index, name in self._places(stream):
                index.setdefault(name, set()).add(stream)
            if expires is None:
                return
            heapq.heappush(self._expiring, (expires, next(self._count), stream))
            begins, self._sweeping = not self._sweeping, True
        if begins:
            host.begin(self._sweep, "ssekit-expiry")

    def discard(self, stream: GrantedStream) -> None:
        """Forget a stream that has ended."""
        with self._lock:
            self._all.discard(stream)
            for index, name in self._places(stream):
                found = index.get(name)
                if found is not None:
                    found.discard(stream)
                    if not found:
                        del index[name]
            if len(self._expiring) > 2 * len(self._all) + 100:
                # Most of those in the heap have ended: each add pays for half a place here.
                self._expiring = [entry for entry in self._expiring if entry[2] in self._all]
                heapq.heapify(self._expiring)

    def find(
        self, subject: str | None, session: str | None, channel: str | None
    ) -> list[GrantedStream]:
        """Return the streams that match all that is given."""
        with self._lock:
            among: Iterable[GrantedStream] = self._all
            if session is not None:
                among = self._by_session.get(session, ())
            elif subject is not None:
                among = self._by_subject.get(subject, ())
            return [
                stream
                for stream in among
                if (subject is None or stream.grant.subject == subject)
                and (channel is None or channel in stream.channels)
            ]

    def end_all(self, why: str) -> None:
        """End every stream that has a grant."""
        with self._lock:
            streams = list(self._all)
        for stream in streams:
            stream.stop(why)

    def _places(self, stream: GrantedStream) -> Iterable[tuple[dict[str, set[GrantedStream]], str]]:
        if stream.grant.subject is not None:
            yield self._by_subject, stream.grant.subject
        if stream.grant.session is not None:
            yield self._by_session, stream.grant.session

    def _sweep(self) -> None:
        while self._end_expired(time.time()):
            time.sleep(SWEEP)

    def _end_expired(self, now: float) -> bool:
        """End the streams whose grants have expired; false if no grant will."""
        expired = []
        with self._lock:
            while self._expiring and self._expiring[0][0] <= now:
                expired.append(heapq.heappop(self._expiring)[2])
            goes_on = self._sweeping = bool(self._expiring)
        for stream in expired:
            if stream in self._all:
                stream.stop(EXPIRED)
        return goes_on
