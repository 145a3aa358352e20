"""The time that one examination may take."""

from __future__ import annotations

import time

KEPT = 0.25
"""The part of the whole that is kept for listening."""


class Budget:
    """Seconds to spend: on questions while there are enough, and the rest on listening."""

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._questions = self._deadline - KEPT * seconds
        # Parts of the whole, so that whatever hangs, there is time for the next question.
        self.look = min(seconds / 8, 4.0)
        """Seconds for a look at a stream."""
        self.quick = min(seconds / 12, 3.0)
        """Seconds for an answer that is no stream."""

    def allows(self, seconds: float) -> bool:
        """Tell whether a question may still take so long: one cut short would be misjudged."""
        return time.monotonic() + seconds <= self._questions

    @property
    def rest(self) -> float:
        """All the seconds that are left."""
        return max(self._deadline - time.monotonic(), 0.05)
