"""Server-Sent Events from plain, synchronous Python.

Everything else is in its module: ``ssekit.script`` for streaming scripts, ``ssekit.cgi`` to run an
application as CGI, ``ssekit.client`` to read streams, ``ssekit.testing`` to test them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ssekit.errors import BrokerUnavailable, HubClosed, InvalidEvent, SSEError
from ssekit.timer import every
from ssekit.wire import Decoder, Event

if TYPE_CHECKING:
    from ssekit.hub import Hub
    from ssekit.stream import Stream

__version__ = "0.1.0"

__all__ = [
    "BrokerUnavailable",
    "Decoder",
    "Event",
    "Hub",
    "HubClosed",
    "InvalidEvent",
    "SSEError",
    "Stream",
    "every",
]


def __getattr__(name: str) -> Any:
    """Import what a script does not need when it is asked for: a CGI process starts the sooner."""
    if name == "Stream":
        from ssekit.stream import Stream

        return Stream
    if name == "Hub":
        from ssekit.hub import Hub

        return Hub
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
