"""Everything that an examination saw, as frozen values; the checks judge nothing else.

A test of a check makes a `Seen` by hand and needs no server.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from ssekit.cli.doctor.exchange import Exchange

UNKNOWN_ORIGIN = "https://ssekit-doctor.invalid"
"""An origin that nobody allows intentionally."""


@dataclass(frozen=True)
class Measured:
    """What ssekit's probe on the server showed.  Times are seconds."""

    url: str
    answers_in: float
    """The shortest time that a plain request took: how precise ``delays`` are."""
    delays: tuple[float, ...] = ()
    """From the time at which an event left the server, by the server's clock, to its arrival."""
    heartbeat: float = 0.0
    closed_after: float | None = None
    """From our disconnect to the end of the stream in the server; None if it is not known."""
    still_open: bool = False
    """Whether it was still open when we stopped looking, ``closed_after`` our disconnect."""
    resumed_at: str | None = None
    """The first id after we reconnected; None if nothing arrived."""
    resumed_right: str = ""
    """The id that should have been first."""

    @property
    def delay(self) -> float:
        """The median delay, as short as it can have been; 0 if none was measured.

        The server read its clock at some moment within ``answers_in``, so our idea of its clock may
        be wrong by half of that.
        """
        median = statistics.median(self.delays) if self.delays else 0.0
        return max(median - self.answers_in / 2, 0.0)


@dataclass(frozen=True)
class Seen:
    """The exchanges of one examination; None for what was not tried."""

    url: str
    """The address that was examined, after redirects."""
    look: Exchange
    """The stream as a browser asks for it, for a short time."""
    heartbeat: float = 30.0
    """Seconds of silence that are too long."""
    origin: str = ""
    """The page's origin, if it reads the stream across origins."""
    redirects: tuple[Exchange, ...] = ()
    plain: Exchange | None = None
    """The same without compression, if ``look`` was compressed or brought nothing."""
    long: Exchange | None = None
    """The stream for the remaining time."""
    head: Exchange | None = None
    post: Exchange | None = None
    preflight: Exchange | None = None
    trace: Exchange | None = None
    """What a server answers by itself, requested if nothing else was answered."""
    stranger: Exchange | None = None
    """The stream as a page of an unknown origin would request it."""
    resumed: Exchange | None = None
    resumed_after: str = ""
    """The id with which it was resumed."""
    expected: tuple[str, ...] = ()
    """The ids that followed it, and so should follow again."""
    http2: bool | None = None
    probe: Measured | None = None
    upstream: Seen | None = None
    """The same stream without the proxy."""

    @property
    def answer(self) -> Exchange:
        """The first exchange with the stream that was answered, or else the last."""
        tried = [one for one in (self.look, self.plain, self.long) if one is not None]
        return next((one for one in tried if one.answered), tried[-1])

    @property
    def watched(self) -> Exchange:
        """The exchange that was watched for the longest time."""
        return self.long or self.look

    @property
    def telling(self) -> Exchange:
        """The exchange with the most events."""
        tried = [self.long, self.plain, self.look]
        return max((one for one in tried if one), key=lambda one: (len(one.events), one.left_at))

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        every = [self.look, self.plain, self.long, self.head, self.post, self.preflight]
        every += [self.stranger, self.resumed, self.trace, *self.redirects]
        return tuple(one for one in every if one is not None)
