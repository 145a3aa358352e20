"""What one process does for all its streams from gevent's event loop: one timer and one watcher.

The timer sees that the process was told to end, and lets whoever serves streams do what is due: the
clients that have a greenlet each, and the fan-out's crowds.  The watcher sees who has left.
"""

from __future__ import annotations

import atexit
import heapq
import itertools
import os
import time
from typing import TYPE_CHECKING, Protocol

import gevent

from ssekit.host import ENDING
from ssekit.host.departures import Departures
from ssekit.servers import Connection

if TYPE_CHECKING:
    from ssekit.host.greenlets import GreenletClient

TICK = 0.05
"""Seconds between two looks at whether heartbeats are due and whether the process is ending."""
PATIENCE = 20
"""Turns of TICK after which a source that has swallowed `Ended` gets it again.

Counted in turns of the event loop, not by the clock: on a busy machine a turn may be long, and
nobody has had more time to end for that.
"""


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
        self.departures = Departures()
        self._singles = _Singles()
        self._crowds: list[Crowd] = []
        self._ending = _never
        loop = gevent.get_hub().loop
        self._timer = loop.timer(TICK, repeat=TICK, ref=False)
        if self.departures.fileno() >= 0:
            self._leaving = loop.io(self.departures.fileno(), 1, ref=False)
            self._leaving.start(self.departures.collect)
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

    def add(self, client: GreenletClient) -> None:
        """Serve a client that has a greenlet."""
        if not self._singles:
            self.join(self._singles)
        self._singles.add(client)
        connection = client.connection
        if connection is not None:
            self.serves(connection)
            if connection.socket is not None:
                client.descriptor = connection.socket.fileno()
                self.departures.watch(client.descriptor, client)

    def asked(self, client: GreenletClient) -> None:
        """Ask its source again, should it still be there after a while."""
        self._singles.asked(client)

    def remove(self, client: GreenletClient) -> None:
        """Serve it no more."""
        if self._singles.remove(client):
            self.departures.forget(client.descriptor)
            if not self._singles:
                self.part(self._singles)

    def _tick(self) -> None:
        if self._ending():
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
        self._clients: dict[int, GreenletClient] = {}
        self._asked: dict[int, int] = {}  # of clients asked to end: the turns they still have
        self._beats: list[tuple[float, int]] = []  # a heap of (when to look, which client)
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._clients)

    def add(self, client: GreenletClient) -> None:
        client.number = next(self._numbers)
        self._clients[client.number] = client
        heapq.heappush(self._beats, (client.wrote_at + client.heartbeat, client.number))

    def remove(self, client: GreenletClient) -> bool:
        self._asked.pop(client.number, None)
        if self._clients.pop(client.number, None) is None:
            return False
        if not self._clients:
            self._beats.clear()
        return True

    def asked(self, client: GreenletClient) -> None:
        """The client's source was asked to end."""
        self._asked[client.number] = PATIENCE

    def tick(self, now: float) -> None:
        for number, turns in list(self._asked.items()):
            self._asked[number] = turns - 1 or PATIENCE
            if turns == 1 and number in self._clients:
                self._clients[number].insist()
        beats = self._beats
        while beats and beats[0][0] <= now:
            _, number = heapq.heappop(beats)
            client = self._clients.get(number)
            if client is None:
                continue
            if client.beat_due() <= 0:
                client.beat()
            next_look = max(client.wrote_at + client.heartbeat, now + TICK)
            heapq.heappush(beats, (next_look, number))

    def end_all(self) -> None:
        for client in list(self._clients.values()):
            client.end(ENDING)


def _never() -> bool:
    return False


_loops: list[Loop] = []


def loop_of_process() -> Loop:
    """Return the one of this process; an event loop does not survive a fork."""
    if not _loops or _loops[0].process != os.getpid():
        _loops[:] = [Loop()]
    return _loops[0]
