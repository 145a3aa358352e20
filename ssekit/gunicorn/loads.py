"""How many connections each worker of a server has, in memory that they share.

A worker writes its own number and reads those of the others.  It knows no socket and no gunicorn:
the memory is made when this module is imported, in the server's master, and inherited by a fork.
"""

from __future__ import annotations

import math
import mmap
import time

_ROOM = 64
"""Workers that can be told apart; of more, some share a place, and are balanced less well."""
_STALE = 3.0
"""Seconds after which a worker that writes nothing is not counted: it is stuck, or was killed."""
_FRESH = 0.002
"""Seconds for which the numbers of the others are not read again."""

_table = memoryview(mmap.mmap(-1, _ROOM * 16)).cast("d")  # pairs: the number, when it was written


class Load:
    """One worker's number.  ``place`` is another one for each worker, counted upwards."""

    def __init__(self, place: int) -> None:
        self._at = place % _ROOM * 2
        self._others: list[float] = []
        self._read_at = -math.inf

    def write(self, connections: int) -> None:
        """Tell the others how many connections this worker has."""
        _table[self._at] = connections
        _table[self._at + 1] = time.monotonic()

    def close(self) -> None:
        """Count this worker no more: it takes no further connections."""
        _table[self._at + 1] = 0.0

    def mean(self) -> float:
        """Return the connections of a worker, on average over those that take them.

        Its own number is the one of now, so that a worker by itself has never more than the mean.
        """
        now = time.monotonic()
        if now - self._read_at > _FRESH:
            oldest = max(now - _STALE, 0.0)
            self._others = [
                _table[at]
                for at in range(0, _ROOM * 2, 2)
                if at != self._at and _table[at + 1] > oldest
            ]
            self._read_at = now
        return (sum(self._others) + _table[self._at]) / (len(self._others) + 1)
