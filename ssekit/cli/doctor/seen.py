"""Everything that an examination saw, as frozen values: what is judged, and nothing else is.

A test of a check makes a `Seen` by hand and needs no server.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from ssekit.cli.doctor.exchange import Exchange

STRANGER = "https://ssekit-doctor.invalid"
"""An origin that nobody allows on purpose."""


@dataclass(frozen=True)
class Measured:
    """What the probe stream of an ssekit on the other side showed.  Times are seconds."""

    url: str
    answers_in: float
    """The shortest time that a plain request took: how precise ``delays`` are."""
    delays: tuple[float, ...] = ()
    """From an event's leaving the server, by the server's clock, to its arrival."""
    heartbeat: float = 0.0
    closed_after: float | None = None
    """From our leaving to the end of the stream in the server; None where it could not be seen."""
    still_open: bool = False
    """Whether it was still open when we stopped looking, ``closed_after`` our leaving."""
    resumed_at: str | None = None
    """The first id after we had come back; None where nothing came."""
    resumed_right: str = ""
    """The id that should have been first."""

    @property
    def delay(self) -> float:
        """The median delay, as short as it can have been; 0 where none was measured.

        The server told its time somewhere within ``answers_in``; its clock may be ahead of what we
        take it for by half of that.
        """
        median = statistics.median(self.delays) if self.delays else 0.0
        return max(median - self.answers_in / 2, 0.0)


@dataclass(frozen=True)
class Seen:
    """The exchanges of one examination.  What was not tried is None."""

    url: str
    """What was examined: where the redirects led."""
    look: Exchange
    """The stream as a browser asks for it, for a short time."""
    heartbeat: float = 30.0
    """Seconds of silence that are too long."""
    origin: str = ""
    """The page's origin, if the stream is meant to be read across origins."""
    redirects: tuple[Exchange, ...] = ()
    plain: Exchange | None = None
    """The same, without compression, where the look was compressed or brought nothing."""
    long: Exchange | None = None
    """The stream for the rest of the time."""
    head: Exchange | None = None
    post: Exchange | None = None
    preflight: Exchange | None = None
    trace: Exchange | None = None
    """What a server answers by itself, asked where nothing else had an answer."""
    stranger: Exchange | None = None
    """The stream as another origin's page asks for it."""
    resumed: Exchange | None = None
    resumed_after: str = ""
    """The id with which it was resumed."""
    expected: tuple[str, ...] = ()
    """The ids that had followed, and so should follow again."""
    http2: bool | None = None
    probe: Measured | None = None
    upstream: Seen | None = None
    """The same asked behind the proxy."""

    @property
    def answer(self) -> Exchange:
        """The first of the exchanges with the stream that had an answer, else the last."""
        tried = [one for one in (self.look, self.plain, self.long) if one is not None]
        return next((one for one in tried if one.answered), tried[-1])

    @property
    def watched(self) -> Exchange:
        """The exchange that was watched the longest."""
        return self.long or self.look

    @property
    def telling(self) -> Exchange:
        """The longest exchange with events to look at."""
        tried = [self.long, self.plain, self.look]
        return max((one for one in tried if one), key=lambda one: (len(one.events), one.left_at))

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        every = [self.look, self.plain, self.long, self.head, self.post, self.preflight]
        every += [self.stranger, self.resumed, self.trace, *self.redirects]
        return tuple(one for one in every if one is not None)
