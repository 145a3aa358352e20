"""How long to wait before trying again, with jitter, so that many waiters do not try together.

The randomness is the kernel's: it needs no import, which a CGI process would pay for.  It is asked
for many numbers at once, and the children of a fork do not share what is left of them.
"""

from __future__ import annotations

import os

_RANGE = 1 << 32
_MANY = 64
_numbers: list[int] = []  # random, below _RANGE
os.register_at_fork(after_in_child=_numbers.clear)


def jittered(value: float, low: float = 0.5, high: float = 1.5) -> float:
    """Return ``value`` times a factor that is random each time, from ``low`` to ``high``."""
    try:
        number = _numbers.pop()
    except IndexError:
        number, *more = memoryview(os.urandom(4 * _MANY)).cast("I")
        _numbers.extend(more)
    return value * (low + (high - low) * number / _RANGE)


class Backoff:
    """The waits between attempts that fail: each up to twice as long as the one before.

    ``first`` and ``longest`` are seconds.  Each wait is a random one from ``low`` to ``high`` times
    its length.  Call `next` after an attempt that failed, and `reset` after one that succeeded.
    """

    def __init__(
        self, first: float, longest: float, *, low: float = 0.5, high: float = 1.0
    ) -> None:
        self.failures = 0
        """Attempts that have failed since the last one that succeeded."""
        self._first = first
        self._longest = longest
        self._low = low
        self._high = high

    @property
    def length(self) -> float:
        """The seconds of the next wait, without jitter."""
        # The exponent is bounded, or a float would overflow after days of failures.
        return min(self._first * 2.0 ** min(self.failures, 32), self._longest)

    def next(self) -> float:
        """Count a failed attempt, and return the seconds to wait before the next."""
        wait = jittered(self.length, self._low, self._high)
        self.failures += 1
        return wait

    def reset(self) -> None:
        """Begin anew: the last attempt has succeeded."""
        self.failures = 0
