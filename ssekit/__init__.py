"""Server-Sent Events from plain, synchronous Python.

Everything else is in its module: ``ssekit.script`` for streaming scripts, ``ssekit.cgi`` to run an
application as CGI, ``ssekit.client`` to read streams, ``ssekit.testing`` to test them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssekit.errors import (
    BrokerUnavailable,
    Cancelled,
    ChannelBusy,
    ChannelFinished,
    HubClosed,
    InvalidEvent,
    SSEError,
)
from ssekit.lazy import exports
from ssekit.wire import Decoder, Event

if TYPE_CHECKING:
    from ssekit.host.client import Ended
    from ssekit.hub.hub import Hub
    from ssekit.stream.stream import Stream
    from ssekit.stream.timer import every

__version__ = "0.1.0"

__all__ = [
    "BrokerUnavailable",
    "Cancelled",
    "ChannelBusy",
    "ChannelFinished",
    "Decoder",
    "Ended",
    "Event",
    "Hub",
    "HubClosed",
    "InvalidEvent",
    "SSEError",
    "Stream",
    "every",
]

__getattr__ = exports(
    __name__,
    {
        "Ended": "ssekit.host.client",
        "Hub": "ssekit.hub.hub",
        "Stream": "ssekit.stream.stream",
        "every": "ssekit.stream.timer",
    },
)
