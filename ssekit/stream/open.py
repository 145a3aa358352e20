"""What is known about one client's stream while it is open, whatever sends its blocks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ssekit import host
from ssekit.host.connection import Connection
from ssekit.host.counting import Counts
from ssekit.host.logs import Logger, Printable
from ssekit.stream.admission import Admission

streams = Logger("ssekit.streams")

LONGEST = 200
"""Characters of a client's text in a log line."""
About = tuple[tuple[str, str], ...]
"""Further fields of a stream's log line, as pairs of name and value."""


class OpenStream:
    """One client's open stream.

    ``client.given`` counts the bytes of the body, the opening included, and ``client.events`` the
    events.
    """

    __slots__ = (
        "about",
        "admission",
        "began",
        "client",
        "connection",
        "counts",
        "cuts",
        "opening",
        "path",
        "retry",
    )

    def __init__(
        self,
        client: host.Client,
        admission: Admission,
        *,
        path: str,
        counts: Counts,
        about: About = (),
        retry: int | None,
        cuts: bool = False,
    ) -> None:
        self.client = client
        self.admission = admission
        self.path = path
        """Of the request."""
        self.about = about
        """Who the client is and which request this was, as far as it is known."""
        self.counts = counts
        self.retry = retry
        """Milliseconds, as the stream was told, or None."""
        self.cuts = cuts
        """Whether the stream is cut where the server ends it (see `Opener.cuts`)."""
        self.connection: Connection | None = None
        """Known once the opening has left, if the server is known."""
        self.opening = b""
        """What is still to be sent before anything else."""
        self.began = time.monotonic()
        counts.opened()

    @property
    def events(self) -> int:
        """How many were sent so far."""
        return self.client.events

    def end(self, why: str) -> None:
        """Count the stream no more, and log that it has ended; to be called once."""
        self.connection = None  # It refers to us: both would stay until the collector comes.
        self.admission.end()
        self.counts.ended(why)
        log_ended(self.path, self.began, self.events, self.client.given, why, about=self.about)


def about(environ: Mapping[str, Any], subject: str | None) -> About:
    """Return what a log line says about a client and its request, besides the path."""
    values = (
        ("subject", subject),
        ("request_id", environ.get("HTTP_X_REQUEST_ID")),
        ("traceparent", environ.get("HTTP_TRACEPARENT")),
    )
    return tuple([(name, str(value)[:LONGEST]) for name, value in values if value])


def log_ended(path: str, began: float, events: int, size: int, why: str, *, about: About) -> None:
    """Log one line about a stream that has ended; ``began`` is on the monotonic clock."""
    if not streams.writes_info():
        return
    fields: dict[str, object] = {
        "path": Printable(path),
        "seconds": round(time.monotonic() - began, 3),
        "events": events,
        "bytes": size,
        "ended": why,
        **{name: Printable(value) for name, value in about},
    }
    text = "path=%s seconds=%.3f events=%d bytes=%d ended=%r"
    text += "".join(f" {name}=%s" for name, _ in about)
    streams.info(text, *fields.values(), fields=fields)
