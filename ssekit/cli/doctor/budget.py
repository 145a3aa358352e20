"""The time that one examination may take."""

from __future__ import annotations

import time

KEPT = 0.25
"""The share of the time that is reserved for listening."""


class Budget:
    """The seconds to spend: on requests while there are enough, and the rest on listening."""

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._requests = self._deadline - KEPT * seconds
        # Shares of the whole, so that a request that hangs leaves time for the next one.
        self.look = min(seconds / 8, 4.0)
        """Seconds for a look at a stream."""
        self.quick = min(seconds / 12, 3.0)
        """Seconds for an answer that is not a stream."""

    def allows(self, seconds: float) -> bool:
        """Tell whether a request may still take so long; cut short, it would be misjudged."""
        return time.monotonic() + seconds <= self._requests

    @property
    def rest(self) -> float:
        """All remaining seconds."""
        return max(self._deadline - time.monotonic(), 0.05)
