"""The errors of ssekit: one family, so that ``except SSEError`` catches what this package raises.

Each also derives from the built-in error that callers of such code already catch.
"""

from __future__ import annotations


class SSEError(Exception):
    """Base of every error that ssekit raises on purpose."""


class InvalidEvent(SSEError, ValueError):
    """Raised for an event that the event stream format cannot carry.

    Raised before anything is written or stored.  The event is never repaired: a newline in an id
    is either a bug of the caller or somebody's attempt to inject fields.
    """


class HubClosed(SSEError):
    """Raised if a hub is used after its ``close()``."""


class BrokerUnavailable(SSEError, ConnectionError):
    """Raised if a broker cannot be reached or cannot store.

    ``maybe_stored`` is true when the event had left this process and only the answer is missing:
    it may have been stored, so publishing it again may show it twice.  Nothing is retried blindly.
    """

    def __init__(self, message: str, *, maybe_stored: bool = False) -> None:
        super().__init__(message)
        self.maybe_stored = maybe_stored


class ChannelFinished(SSEError):
    """Raised if something is sent into a channel that is finished, or that somebody else produces.

    ``channel`` is its name and ``reason`` why it is finished: "finished", "failed", "lost" or
    "cancelled"; None if it was reopened for another producer.
    """

    def __init__(self, channel: str, reason: str | None) -> None:
        why = f"is finished ({reason})" if reason else "has another producer now"
        super().__init__(f"the channel {channel!r} {why}; Hub.reopen opens it again")
        self.channel = channel
        self.reason = reason


class ChannelBusy(SSEError):
    """Raised if a channel is to get a second producer.  ``channel`` is its name."""

    def __init__(self, channel: str) -> None:
        super().__init__(f"the channel {channel!r} has a producer already")
        self.channel = channel


class Cancelled(SSEError):
    """Raised in a producer that sends after ``Hub.cancel`` has ended its channel."""
