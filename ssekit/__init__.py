"""Server-Sent Events from plain, synchronous Python."""

from ssekit.errors import BrokerUnavailable, HubClosed, InvalidEvent, SSEError
from ssekit.wire import Decoder, Event

__version__ = "0.1.0"

__all__ = [
    "BrokerUnavailable",
    "Decoder",
    "Event",
    "HubClosed",
    "InvalidEvent",
    "SSEError",
]
