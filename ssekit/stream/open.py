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
_NO_ENVIRON: dict[str, Any] = {}
About = tuple[tuple[str, str], ...]
"""Further fields of a stream's log line, as pairs of name and value."""


class OpenStream:
    """One client's open stream; ``client`` is made when it is first needed, unless it is given.

    ``heartbeat`` is what the client is to have.
    """

    __slots__ = (
        "_client",
        "_environ",
        "about",
        "admission",
        "began",
        "connection",
        "counts",
        "cuts",
        "heartbeat",
        "opening",
        "path",
        "retry",
    )

    def __init__(
        self,
        environ: dict[str, Any],
        admission: Admission,
        *,
        heartbeat: float,
        retry: int | None,
        counts: Counts,
        subject: str | None = None,
        cuts: bool = False,
        client: host.Client | None = None,
    ) -> None:
        self._environ = environ if client is None else _NO_ENVIRON
        self._client = client
        self.admission = admission
        self.path: str = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        """Of the request."""
        self.about = about(environ, subject)
        """Who the client is and which request this was, as far as it is known."""
        self.heartbeat = heartbeat
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
    def client(self) -> host.Client:
        """What the process does for the client, unless it is taken over before anything is sent."""
        if self._client is None:
            self._client = host.client_of(self._environ, self.heartbeat)
            self._environ = _NO_ENVIRON  # The stream may live on when its request is gone.
        return self._client

    @property
    def events(self) -> int:
        """How many were sent so far."""
        return 0 if self._client is None else self._client.events

    @property
    def given(self) -> int:
        """Bytes of the body that were sent, or given to the server, the opening included."""
        return 0 if self._client is None else self._client.given

    def end(self, why: str) -> None:
        """Count the stream no more, and log that it has ended; to be called once."""
        self.connection = None
        self.admission.end()
        self.counts.ended(why)
        log_ended(self.path, self.began, self.events, self.given, why, about=self.about)

    def detach(self) -> None:
        """Nothing is sent through the server any more."""
        self.connection = None  # It refers to us: both would stay until the collector comes.
        if self._client is not None:
            self._client.detach()


def about(environ: Mapping[str, Any], subject: str | None) -> About:
    """Return what a log line says about a client and its request, besides the path."""
    request_id = environ.get("HTTP_X_REQUEST_ID")
    traceparent = environ.get("HTTP_TRACEPARENT")
    if not (subject or request_id or traceparent):
        return ()
    values = (("subject", subject), ("request_id", request_id), ("traceparent", traceparent))
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
