"""How long the turns of a process's event loop take, by the process's own processor time.

What waits for the event loop waits for the turn that is under way.  A server that has to share its
core waits for that as well, which is no fault of its own: processor time leaves it out.
"""

from __future__ import annotations

import gc
import time
from typing import Any

import gevent


class Turns:
    """Measures from `start` to `stop`; between, it costs two callbacks a turn."""

    def __init__(self) -> None:
        loop = gevent.get_hub().loop
        # libev waits between the two: before all else that follows, and after all that came.
        self._after_waiting = loop.check(priority=loop.MAXPRI)
        self._before_waiting = loop.prepare(priority=loop.MINPRI)
        self._began = self._collecting = 0.0
        self._turns: list[float] = []
        self._collections: list[float] = []

    def start(self) -> None:
        """Begin to measure."""
        self._turns, self._collections = [], []
        self._began = time.process_time()
        self._after_waiting.start(self._begin)
        self._before_waiting.start(self._end)
        gc.callbacks.append(self._collect)

    def stop(self) -> dict[str, float]:
        """Return what was measured, in milliseconds."""
        self._after_waiting.stop()
        self._before_waiting.stop()
        gc.callbacks.remove(self._collect)
        return {
            "longest": max(self._turns, default=0.0) * 1000,
            "p99": _met_by_99_of_100(self._turns) * 1000,
            "longest collection": max(self._collections, default=0.0) * 1000,
        }

    def _begin(self) -> None:
        self._began = time.process_time()

    def _end(self) -> None:
        self._turns.append(time.process_time() - self._began)

    def _collect(self, phase: str, _info: dict[str, Any]) -> None:
        now = time.process_time()
        if phase == "start":
            self._collecting = now
        else:
            self._collections.append(now - self._collecting)


def _met_by_99_of_100(turns: list[float]) -> float:
    """Return the length that 99 of 100 moments' turns do not exceed: long turns meet more."""
    seen, wanted = 0.0, sum(turns) * 0.99
    for turn in sorted(turns):
        seen += turn
        if seen >= wanted:
            return turn
    return 0.0
