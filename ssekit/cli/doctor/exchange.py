"""A request and its answer as a frozen value: what the doctor's checks look at.

`ssekit.cli.doctor.http` makes it.  It holds times and bytes and judges nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from ssekit.errors import InvalidEvent
from ssekit.wire import Decoder, Event

EVENT_LIMIT = 1024 * 1024
"""Bytes of one event; anything longer is not taken for an event stream."""

OPEN = "open"
"""We disconnected while the body was still open."""
ENDED = "ended"
"""The body ended as its framing said."""
CUT = "cut"
"""The connection ended inside the body."""
CLOSED = "closed"
"""The connection ended, which is the only end that a body without framing has."""
FULL = "full"
"""We disconnected because the body was longer than our limit."""

BAD_CERTIFICATE = "the certificate is not valid"
"""How a `failure` begins if TLS refused the certificate."""

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Arrival:
    """Bytes of the body as the application wrote them, and the seconds from the request to them."""

    at: float
    data: bytes


@dataclass(frozen=True)
class Exchange:
    """A request and its answer.  All times are seconds since the request was sent."""

    url: str
    method: str = "GET"
    sent: float = 0.0
    """The wall clock's time when the request had been sent."""
    failure: str = ""
    """Why there was no answer; "" if there was one."""
    version: str = ""
    status: int = 0
    headers: Headers = ()
    head_at: float | None = None
    arrivals: tuple[Arrival, ...] = field(default=(), repr=False)
    left: str = OPEN
    left_at: float = 0.0
    """When it ended, or when we disconnected."""
    opaque: bool = False
    """Whether the body is compressed in a way that the doctor does not decode."""

    def get(self, name: str) -> str:
        """The header's value: the last one of several, or ""."""
        values = self.all(name)
        return values[-1] if values else ""

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @property
    def answered(self) -> bool:
        return self.head_at is not None

    @property
    def media_type(self) -> str:
        return self.get("Content-Type").partition(";")[0].strip().lower()

    @property
    def is_stream(self) -> bool:
        return self.status == 200 and self.media_type == "text/event-stream"

    @cached_property
    def body(self) -> bytes:
        return b"".join(arrival.data for arrival in self.arrivals)

    @cached_property
    def events(self) -> tuple[tuple[float, Event], ...]:
        """The events that a browser would dispatch, and when."""
        decoder = Decoder(limit=EVENT_LIMIT)
        events: list[tuple[float, Event]] = []
        for arrival in self.arrivals:
            try:
                events += [(arrival.at, event) for event in decoder.feed(arrival.data)]
            except InvalidEvent:
                break  # Longer than the limit; a check finds that in the bytes.
        return tuple(events)

    @property
    def ids(self) -> list[str]:
        return [event.id or "" for _, event in self.events]

    @property
    def over(self) -> bool:
        """Whether the server ended it."""
        return self.left in (ENDED, CUT, CLOSED)
