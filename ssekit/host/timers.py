"""One timer for all waits of a process: clients that are due together wake in one turn.

gevent gives each wait a timer of its own, and each that fires a turn of the event loop, which costs
more than an event.  So waits that end within the same few milliseconds end together: none ends
early, and none later than a tenth of it and at most 5 ms.
"""

from __future__ import annotations

import os
import time
from collections import deque
from heapq import heappop, heappush
from typing import Any, Protocol

import gevent

from ssekit.host.turns import NextTurn

GRAIN = 0.001
"""Seconds that are one moment."""
COARSE = 4
"""Moments at which waits of `LONG` seconds and more end together."""
LONG = 0.04
SLICE = 0.01
"""Seconds after which others have their turn before more waits end."""


class Timed(Protocol):
    """What is due at some time."""

    def due(self) -> None:
        """It is; called from the event loop, and must not wait."""


class Wait:
    """A wait of a greenlet; `cancel` ends it without waking."""

    __slots__ = ("_moment", "_timers", "greenlet")

    def __init__(self, timers: Timers, seconds: float, greenlet: Any) -> None:
        self.greenlet = greenlet
        self._timers = timers
        self._moment = timers.at(time.monotonic() + seconds, seconds, self)

    def due(self) -> None:
        """Resume the greenlet."""
        greenlet, self.greenlet = self.greenlet, None
        if greenlet is not None:
            greenlet.switch()

    def cancel(self) -> None:
        """Do not wake the greenlet."""
        if self.greenlet is not None:
            self.greenlet = None
            self._timers.cancel(self._moment, self)


class Timers:
    """The waits of one process, by the millisecond in which they end."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.hub = gevent.get_hub()
        self._events = self.hub.loop
        self._timer = self._events.timer(0)
        self._waits: dict[int, list[Timed]] = {}
        self._moments: list[int] = []  # a heap of the keys
        self._next = -1  # the moment for which the timer is set
        self._due: deque[Timed] = deque()
        self._turn = NextTurn(self._wake)

    def wake_after(self, seconds: float, greenlet: Any) -> Wait:
        """Switch to the greenlet after ``seconds``, from the event loop."""
        return Wait(self, seconds, greenlet)

    def at(self, when: float, seconds: float, timed: Timed) -> int:
        """Call ``timed.due()`` at a time of the monotonic clock; returns what `cancel` needs.

        ``seconds`` is about how long that is from now.
        """
        moment = int(when / GRAIN) + 1
        if seconds >= LONG:
            moment += -moment % COARSE
        waits = self._waits.get(moment)
        if waits is not None:
            waits.append(timed)
        else:
            self._waits[moment] = [timed]
            heappush(self._moments, moment)
            if self._next < 0 or moment < self._next:
                self._set(moment)
        return moment

    def cancel(self, moment: int, timed: Timed) -> None:
        """Forget what was to be called; what is due already is called all the same."""
        waits = self._waits.get(moment)
        if waits is not None and timed in waits:
            waits.remove(timed)

    def _set(self, moment: int) -> None:
        self._timer.stop()
        self._next = moment
        # The loop counts from when its turn began, which may be a while ago.
        self._events.update_now()
        self._timer = self._events.timer(max(moment * GRAIN - time.monotonic(), 0))
        self._timer.start(self._fire)

    def _fire(self) -> None:
        now = int(time.monotonic() / GRAIN)
        moments = self._moments
        while moments and moments[0] <= now:
            self._due += self._waits.pop(heappop(moments))
        self._next = -1
        self._wake()
        if moments and self._next < 0:
            self._set(moments[0])

    def _wake(self) -> None:
        due = self._due
        until = time.monotonic() + SLICE
        try:
            while due and time.monotonic() < until:
                due.popleft().due()
        finally:
            if due:
                self._turn.ask()


_timers: list[Timers] = []


def timers_of_process() -> Timers:
    """Return those of this process; an event loop does not survive a fork."""
    if not _timers or _timers[0].process != os.getpid():
        _timers[:] = [Timers()]
    return _timers[0]
