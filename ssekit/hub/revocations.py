"""Ending streams by who reads them, on every process that follows the log.

A disconnection or a revocation is an entry of an internal channel.  The follower hands it over
before it lets anybody have the entries that came after it, so that nothing that was published later
is sent to a stream that it ends.  Entries have keys, so that a process that starts, or that has
lost its place in the log, reads which ones are in force.

What it refuses
    * A *revocation* ends the streams that match, and refuses grants that were issued before it,
      until it expires.
    * A *disconnection* ends the streams that match; they may come back and are authorized again.  A
      stream whose authorization began before it has to be authorized again as well.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from itertools import product

from ssekit import host
from ssekit.brokers import Broker, Entry
from ssekit.brokers.contract import INTERNAL
from ssekit.errors import BrokerUnavailable, HubClosed
from ssekit.host.backoff import Backoff
from ssekit.hub.entries import body_of, event_of, removal_body
from ssekit.hub.grant import Grant, check_name
from ssekit.hub.granted import DISCONNECTED, REVOKED, GrantedStream, GrantedStreams
from ssekit.wire import Event

log = logging.getLogger("ssekit.access")

CHANNEL = f"{INTERNAL}access"
"""Where disconnections and revocations are."""
KEEP_DISCONNECTION = 600.0
"""Seconds for which a process that has lost its place in the log is told of a disconnection."""
MOST_RETRIED = 1000
"""Entries that wait for a log that cannot be reached."""


Who = tuple[bool, str | None, str | None, str | None]
"""Whether it revokes, and the subject, session and channel that have to match."""


@dataclass(frozen=True)
class Revocation:
    """Whose streams end: those that match all that is not None.

    ``at`` and ``until`` are in seconds since 1970.  ``revokes`` is false for a disconnection.

    Raises ValueError if nothing is given, or for what cannot be a subject, session or channel.
    """

    subject: str | None
    session: str | None
    channel: str | None
    at: float
    until: float
    revokes: bool

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in ("subject", "session", "channel")}
        if all(value is None for value in given.values()):
            raise ValueError("name a subject, a session or a channel; nobody is not everybody")
        for name, value in given.items():
            if value is not None:
                check_name(f"a {name}", value)

    @property
    def who(self) -> Who:
        """Whom it is about; a later one of the same supersedes it."""
        return (self.revokes, self.subject, self.session, self.channel)

    @property
    def why(self) -> str:
        """Why the streams that it ends have ended."""
        return REVOKED if self.revokes else DISCONNECTED

    def matches(self, grant: Grant, channels: Collection[str]) -> bool:
        """Tell whether it is about a stream."""
        return (
            (self.subject is None or self.subject == grant.subject)
            and (self.session is None or self.session == grant.session)
            and (self.channel is None or self.channel in channels)
        )

    def refuses(self, stream: GrantedStream, seen_at: float) -> bool:
        """Tell whether a stream must not go on; ``seen_at`` is when this process has seen it."""
        if not self.matches(stream.grant, stream.channels):
            return False
        if self.revokes:
            return stream.grant.issued is None or stream.grant.issued <= self.at
        return stream.begun <= seen_at


class Revocations:
    """The disconnections and revocations in force, as this process knows them.

    A process that only writes them need not follow the log.
    """

    def __init__(self, broker: Broker) -> None:
        self.process = os.getpid()
        self.streams = GrantedStreams()
        """Those that they end."""
        self._broker = broker
        self._looked = False  # at what is in the log already, before the first was written
        self._known: dict[Who, tuple[Revocation, float]] = {}  # with when it was seen
        self._unwritten: list[Revocation] = []
        self._retrying = False
        self.loaded = False
        """Whether those of before this process began to follow are known."""

    def restart(self) -> None:
        """Read those in force from the log: entries may have been missed.

        Raises what `Broker.opening` raises.
        """
        self.loaded = False
        self.take(self._broker.opening([CHANNEL], 0).state)
        self.loaded = True

    def take(self, entries: Sequence[Entry]) -> None:
        """Apply entries of the internal channel, in their order."""
        for entry in entries:
            try:
                event = event_of(entry)
                if event.event is None:
                    self._apply(Revocation(**json.loads(str(event.data))))
            except (TypeError, ValueError):
                log.exception("an entry of the log's revocations cannot be read")

    def write(self, revocation: Revocation) -> None:
        """Let every process have it, this one too; while the log is away, try again.

        Until then it holds in this process.  Raises `BrokerUnavailable` if too many wait already.
        """
        try:
            self._append(revocation)
        except BrokerUnavailable as error:
            self._apply(revocation)
            log.error("a revocation is not in the log yet, and is tried again: %s", error)
            if len(self._unwritten) >= MOST_RETRIED:
                raise
            self._unwritten.append(revocation)
            if not self._retrying:
                self._retrying = True
                host.begin(self._retry, "ssekit-revocations")

    def refusal(self, stream: GrantedStream) -> str | None:
        """Return why a stream that is about to open must not, or None."""
        if not self._known:
            return None
        now = time.time()
        grant = stream.grant
        # All that can match it, however many others there are.
        for who in product(
            (True, False),
            {None, grant.subject},
            {None, grant.session},
            {None, *stream.channels},
        ):
            found = self._known.get(who)
            if found and found[0].until > now and found[0].refuses(stream, found[1]):
                return found[0].why
        return None

    def _apply(self, revocation: Revocation) -> None:
        now = time.time()
        known = self._known.get(revocation.who)
        if known and known[0] == revocation:
            return  # It was applied when it was first seen.
        self._known[revocation.who] = (revocation, now)
        if revocation.until <= now:
            return  # It is over, and only known so that it is removed from the log.
        found = self.streams.find(revocation.subject, revocation.session, revocation.channel)
        for stream in found:
            if revocation.refuses(stream, now):
                stream.stop(revocation.why)

    def _append(self, revocation: Revocation) -> None:
        body = body_of(Event(asdict(revocation)))
        self._broker.append(CHANNEL, body, key=json.dumps(revocation.who))
        if not self._looked:
            # What has expired of other processes', too: the one that wrote it may never return.
            self.take(self._broker.opening([CHANNEL], 0).state)
            self._looked = True
        now = time.time()
        for who, (known, _) in tuple(self._known.items()):
            if known.until <= now:
                key = json.dumps(who)
                self._broker.remove(CHANNEL, key, removal_body(CHANNEL, key))
                self._known.pop(who, None)

    def _retry(self) -> None:
        backoff = Backoff(0.1, 5.0)
        while self._unwritten:
            time.sleep(backoff.next())
            try:
                self._append(self._unwritten[0])
            except BrokerUnavailable:
                continue
            except HubClosed:
                log.error(
                    "%d revocations were not written: the hub is closed", len(self._unwritten)
                )
                break
            self._unwritten.pop(0)
            backoff.reset()
        self._retrying = False


def revocation(
    subject: str | None,
    session: str | None,
    channel: str | None,
    keep: float | None,
    before: float | None = None,
) -> Revocation:
    """Return a revocation that holds for ``keep`` seconds, or a disconnection where that is None.

    Raises ValueError as `Revocation` does, and for a ``keep`` that is not above 0.
    """
    if keep is not None and not keep > 0:
        raise ValueError(f"keep must be seconds above 0, not {keep!r}")
    now = time.time()
    until = now + (KEEP_DISCONNECTION if keep is None else keep)
    at = now if before is None else before
    return Revocation(subject, session, channel, at, until, keep is not None)
