"""What one process does for all its streams from gevent's event loop: one timer and one watcher.

The timer sees that the process was told to end, and lets whoever serves streams do what is due: the
clients that have a greenlet each, and the fan-out's crowds.  The watcher sees who has left.
"""

from __future__ import annotations

import atexit
import gc
import math
import os
import time
from collections import deque
from collections.abc import Callable
from itertools import takewhile
from typing import Protocol

import gevent

from ssekit.host.client import ENDING
from ssekit.host.disconnects import Disconnects
from ssekit.host.wsgi_servers import Connection

TICK = 0.05
"""Seconds between two looks at whether heartbeats are due and whether the process is ending."""
PATIENCE = 20
"""Turns of TICK after which a source that has swallowed `Ended` gets it again.

Counted in turns of the event loop, not by the clock: on a busy machine a turn may be long, and
nobody has had more time to end for that.
"""

AT_ONCE = 100
"""Clients that go on in one turn of the event loop."""


class Served(Protocol):
    """One client with a greenlet of its own, as the event loop sees it."""

    heartbeat: float
    wrote_at: float
    connection: Connection | None
    descriptor: int

    def left(self) -> None:
        """The client has disconnected."""

    def beat(self) -> None:
        """A heartbeat is due."""

    def end(self, reason: str) -> None:
        """The source has to end."""

    def insist(self) -> None:
        """The source has to end, and has had time to."""

    def resume(self) -> None:
        """The source may go on."""


class Crowd(Protocol):
    """Many clients that are served together."""

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
        self._singles = _Singles()
        self._crowds: list[Crowd] = []
        self._ending = _never
        self._woken: deque[Served] = deque()
        self._resuming = False
        self._events = loop = gevent.get_hub().loop
        self._timer = loop.timer(TICK, repeat=TICK, ref=False)
        if self.disconnects.fileno() >= 0:
            self._leaving = loop.io(self.disconnects.fileno(), 1, ref=False)
            self._leaving.start(self.disconnects.collect)
        # gunicorn's worker may be gone before the timer sees that it was told to end, and on
        # SIGINT it exits without waiting for anybody.
        atexit.register(self._at_exit)

    def join(self, crowd: Crowd) -> None:
        """Serve a crowd, which is not empty, until it parts."""
        if not self._crowds:
            self._timer.start(self._tick)
        self._crowds.append(crowd)

    def part(self, crowd: Crowd) -> None:
        """Serve a crowd no more."""
        self._crowds.remove(crowd)
        if not self._crowds:
            self._timer.stop()
            self._ending = _never

    def serves(self, connection: Connection) -> None:
        """Learn from a connection of the server's whether the process is ending."""
        self._ending = connection.ending

    def add(self, client: Served) -> None:
        """Serve a client that has a greenlet."""
        if not self._singles:
            self.join(self._singles)
        self._singles.add(client)
        connection = client.connection
        if connection is not None:
            self.serves(connection)
            if connection.socket is not None:
                client.descriptor = connection.socket.fileno()
                self.disconnects.watch(client.descriptor, client)

    def asked(self, client: Served) -> None:
        """Ask its source again, should it still be there after a while."""
        self._singles.asked(client)

    def remove(self, client: Served) -> None:
        """Serve it no more."""
        if self._singles.remove(client):
            self.disconnects.forget(client.descriptor)
            if not self._singles:
                self.part(self._singles)

    def resume(self, client: Served) -> None:
        """Let a client that waits go on, in the next turn; from any thread."""
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
                self._events.run_callback(self._resume_some)

    def _tick(self) -> None:
        if self._ending():
            gc.freeze()  # Nothing is worth collecting, and looking at all that goes takes time.
            self._end_all()
        now = time.monotonic()
        for crowd in list(self._crowds):
            crowd.tick(now)

    def _end_all(self) -> None:
        for crowd in list(self._crowds):
            crowd.end_all()

    def _at_exit(self) -> None:
        if self.process != os.getpid() or not self._crowds:
            return
        gevent.get_hub().loop.run_callback(self._end_all)
        deadline = time.monotonic() + PATIENCE * TICK
        while self._crowds and time.monotonic() < deadline:
            gevent.sleep(TICK / 5)


class _Singles:
    """The clients that have a greenlet each."""

    def __init__(self) -> None:
        self._clients: set[Served] = set()
        self._asked: dict[Served, int] = {}  # to end, and the turn at which again
        self._turn = 0
        self._shortest = math.inf  # of the heartbeats
        self._sweep_at = 0.0

    def __len__(self) -> int:
        return len(self._clients) + len(self._asked)

    def add(self, client: Served) -> None:
        self._clients.add(client)
        if client.heartbeat < self._shortest:
            self._shortest, self._sweep_at = client.heartbeat, 0.0

    def remove(self, client: Served) -> bool:
        if client in self._clients:
            self._clients.remove(client)
        elif self._asked.pop(client, None) is None:
            return False
        if not self._clients:
            self._shortest = math.inf
        return True

    def asked(self, client: Served) -> None:
        """The client's source was asked to end."""
        if client in self._clients:
            self._clients.remove(client)
            self._asked[client] = self._turn + PATIENCE

    def tick(self, now: float) -> None:
        self._turn += 1
        due = takewhile(lambda client: self._asked[client] <= self._turn, self._asked)
        for client in list(due):
            if self._asked.pop(client, None) is not None:
                self._asked[client] = self._turn + PATIENCE  # behind those who were asked before
                client.insist()
        if now >= self._sweep_at:
            self._sweep_at = now + self._shortest / 20
            for client in list(self._clients):
                if now - client.wrote_at >= client.heartbeat:
                    client.beat()

    def end_all(self) -> None:
        for client in list(self._clients):
            client.end(ENDING)


def _never() -> bool:
    return False


_loops: list[Loop] = []


def loop_of_process() -> Loop:
    """Return the one of this process; an event loop does not survive a fork."""
    if not _loops or _loops[0].process != os.getpid():
        _loops[:] = [Loop()]
    return _loops[0]


def begin_in_main_thread(run: Callable[[], None]) -> bool:
    """Run a function in a greenlet of the main thread; false if this is the main thread."""
    if gevent.get_hub().main_hub:
        return False
    for one in gc.get_objects():  # gevent tells a thread its own hub and no other.
        if issubclass(type(one), gevent.hub.Hub) and one.main_hub:
            one.loop.run_callback_threadsafe(gevent.spawn, run)
            return True
    return False
