"""What one process does for all its streams from gevent's event loop: one timer and one watcher.

The timer sends the heartbeats that are due, sees that the process was told to end, and calls the
client groups, which know what else is due.  The watcher sees which clients have disconnected.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import gevent

from ssekit.host.connection import Connection
from ssekit.host.disconnects import Disconnects
from ssekit.host.heartbeats import Heartbeats
from ssekit.host.turns import NextTurn
from ssekit.host.wsgi_servers import close_if_idle, worker_is_ending

TICK = 0.05
"""Seconds between two looks at whether heartbeats are due and whether the process is ending."""
AT_EXIT = 1.0
"""Seconds that a process which exits gives its streams to end."""
AT_ONCE = 100
"""Clients that are resumed in one turn of the event loop."""


class Resumed(Protocol):
    """A client that may be waiting."""

    def resume(self) -> None:
        """Resume."""


class ClientGroup(Protocol):
    """Clients that are served together."""

    def __len__(self) -> int: ...

    def tick(self, now: float) -> None:
        """Do what is due."""

    def end_all(self) -> None:
        """End every stream: the process ends."""


class Loop:
    """What one process does for all its clients from the event loop."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.disconnects = Disconnects()
        self.heartbeats = Heartbeats()
        self._groups: list[ClientGroup] = []
        self._ending: Callable[[], bool] = worker_is_ending
        self._ended = False
        self._woken: deque[Resumed] = deque()
        self._resuming = False
        self._turn = NextTurn(self._resume_some)
        self._events = loop = gevent.get_hub().loop
        self._clock = _clock_of(loop)
        self._timer = loop.timer(TICK, repeat=TICK, ref=False)
        if self.disconnects.fileno() >= 0:
            self._watcher = loop.io(self.disconnects.fileno(), 1, ref=False)
            self._watcher.start(self.disconnects.collect)
        # gunicorn's worker may be gone before the timer sees that it was told to end, and on
        # SIGINT it exits without waiting for anything.
        atexit.register(self._at_exit)

    def add_group(self, group: ClientGroup) -> None:
        """Serve a group, which is not empty, until `remove_group`."""
        if not self._timer.active:
            self._timer.start(self._tick)
        self._groups.append(group)

    def remove_group(self, group: ClientGroup) -> None:
        """Serve a group no more."""
        self._groups.remove(group)
        if not self._groups and not self._ended:
            self._timer.stop()
            self._ending = worker_is_ending

    def ends_with(self, connection: Connection) -> None:
        """Learn from a connection of the server's whether the process is ending."""
        if self._ending is worker_is_ending:  # All connections of a process tell the same.
            self._ending = connection.ending

    def turn_began(self) -> float:
        """Return when this turn of the event loop began, on the clock of the loop."""
        return float(self._events.now())

    def turn(self) -> float:
        """Return the seconds since this turn of the event loop began."""
        return self._clock() - float(self._events.now())

    def resume(self, client: Resumed) -> None:
        """Resume a client that waits, in the next turn; from any thread."""
        self._woken.append(client)
        if not self._resuming:
            self._resuming = True
            self._events.run_callback_threadsafe(self._resume_some)

    def _resume_some(self) -> None:
        # Some at a time, so that others have their turns between.
        try:
            for _ in range(min(len(self._woken), AT_ONCE)):
                self._woken.popleft().resume()
        finally:
            self._resuming = False
            if self._woken:
                self._resuming = True
                self._turn.ask()

    def _tick(self) -> None:
        if self._ending():
            self._end()
        now = time.monotonic()
        self.heartbeats.sweep(now)
        for group in list(self._groups):
            group.tick(now)

    def _end(self) -> None:
        self._ended = True
        gc.freeze()  # Nothing is worth collecting, and looking at all that goes takes time.
        self._end_all()
        # gunicorn looks once a second whether all is done.  An exit from the event loop is raised
        # in the main greenlet, as gunicorn's own quick exit is.  What runs at the exit may wait, so
        # nothing may be accepted any more.
        if not self._groups and close_if_idle(gevent.get_hub().parent.gr_frame):
            sys.exit()

    def _end_all(self) -> None:
        for group in list(self._groups):
            group.end_all()

    def _at_exit(self) -> None:
        if self.process != os.getpid() or not self._groups:
            return
        gevent.get_hub().loop.run_callback(self._end_all)
        deadline = time.monotonic() + AT_EXIT
        while self._groups and time.monotonic() < deadline:
            gevent.sleep(TICK / 5)


def _clock_of(loop: Any) -> Callable[[], float]:
    """Return the clock by which a loop's ``now`` counts: libev's is the wall clock, libuv's not."""
    loop.update_now()
    now = loop.now()
    return min((time.time, time.monotonic), key=lambda clock: abs(clock() - now))


_loops: list[Loop] = []


def loop_of_process() -> Loop:
    """Return the one of this process; an event loop does not survive a fork."""
    if not _loops or _loops[0].process != os.getpid():
        _loops[:] = [Loop()]
    return _loops[0]
