"""What is known about one client's stream while it is open, whoever sends its blocks."""

from __future__ import annotations

import time

from ssekit import host
from ssekit.host.connection import Connection
from ssekit.host.logs import Logger, Printable
from ssekit.stream.admission import Admission

streams = Logger("ssekit.streams")


class OpenStream:
    """One client's open stream.

    ``client.given`` counts the bytes of the body, the opening included, and ``client.events`` the
    events.
    """

    __slots__ = ("admission", "began", "client", "connection", "cuts", "path", "retry")

    def __init__(
        self,
        client: host.Client,
        admission: Admission,
        *,
        path: str,
        retry: int | None,
        cuts: bool = False,
    ) -> None:
        self.client = client
        self.admission = admission
        self.path = path
        """Of the request."""
        self.retry = retry
        """Milliseconds, as the stream was told, or None."""
        self.cuts = cuts
        """Whether the stream is cut where the server ends it (see `Opener.cuts`)."""
        self.connection: Connection | None = None
        """Known once the opening has left, if the server is known."""
        self.began = time.monotonic()

    @property
    def events(self) -> int:
        """How many were sent so far."""
        return self.client.events

    def end(self, why: str) -> None:
        """Count the stream no more, and log that it has ended; to be called once."""
        self.connection = None  # It refers to us: both would stay until the collector comes.
        self.admission.end()
        log_ended(self.path, self.began, self.events, self.client.given, why)


def log_ended(path: str, began: float, events: int, size: int, why: str) -> None:
    """Log one line about a stream that has ended; ``began`` is on the monotonic clock."""
    seconds = time.monotonic() - began
    text = "path=%s seconds=%.3f events=%d bytes=%d ended=%r"
    streams.info(text, Printable(path), seconds, events, size, why)
