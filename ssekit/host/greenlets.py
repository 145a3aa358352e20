"""Clients under gevent: gunicorn's gevent worker, or gevent's own server.

The source runs in the server's own greenlet, so a stream costs no second one.  One timer and one
watcher per process serve all clients from the event loop:

* who has left is seen at once, and `Ended` is thrown into the greenlet where the source sleeps or
  waits; never while the server is writing, as half an event would go out,
* a heartbeat is one small write beside the server, between two blocks, while the source sleeps,
* a process that was told to end ends every source the same way.

Writing beside the server needs a plain socket and nothing on the way that changes bytes.  Where it
is not so (compression, other middleware, TLS in the server), the source gets a greenlet of its own,
and the server's greenlet waits for it and gives the heartbeats to the server as blocks.
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import heapq
import itertools
import logging
import os
import socket
import time
from collections.abc import Iterator
from typing import Any, Protocol

import gevent
from gevent import getcurrent
from gevent.queue import Channel, Empty

from ssekit.host import ENDING, LEFT, Client, Ended
from ssekit.host.departures import Departures
from ssekit.servers import Connection, plain
from ssekit.wire import HEARTBEAT

TICK = 0.05
"""Seconds between two looks at whether heartbeats are due and whether the process is ending."""
PATIENCE = 20
"""Turns of TICK after which a source that has swallowed `Ended` gets it again.

Counted in turns of the event loop, not by the clock: on a busy machine a turn may be long, and
nobody has had more time to end for that.
"""

log = logging.getLogger("ssekit.host")


class GreenletClient(Client):
    """One client, served by one greenlet."""

    def __init__(self, heartbeat: float) -> None:
        super().__init__(heartbeat)
        self.number = -1
        self.descriptor = -1
        self._greenlet: Any = None
        self._inside = False
        self._beside: bool | None = None
        self._pump: _Pump | None = None

    def attach(self, connection: Connection | None) -> None:
        super().attach(connection)
        self._beside = (
            connection is not None and plain(connection.socket) and connection.direct(self.given)
        )
        loop_of_process().add(self)

    def detach(self) -> None:
        loop_of_process().remove(self)
        super().detach()

    def enter(self) -> None:
        self.check()
        self._greenlet = getcurrent()
        self._inside = True

    def leave(self) -> None:
        self._inside = False

    def pull(self, items: Iterator[Any]) -> Any:
        if self._beside is not False:
            return super().pull(items)
        if self._pump is None:
            self._pump = _Pump(self, items)
        self.check()
        return self._pump.take(max(self.beat_due(), 0))

    def close(self, items: object) -> None:
        if self._pump is None:
            super().close(items)
        else:
            self._pump.stop()

    def left(self) -> None:
        """The client has gone."""
        self.end(LEFT)

    def end(self, reason: str) -> None:
        """Ask the source to end; from the event loop only."""
        if self.ended is not None:
            return
        self.ended = reason
        loop_of_process().asked(self)
        if self.connection is not None:
            self.connection.close_after()
            if reason == ENDING:
                self.connection.expect_nothing()
        self._throw()

    def insist(self) -> None:
        """Ask again, as the source was asked to end and has had time to."""
        if self._inside:
            log.warning("a source has caught ssekit.host.Ended and goes on: it is ended again")
            self._throw()
        elif self.connection is not None and self.connection.socket is not None:
            # The server waits to write to a client that does not read; only the socket ends that.
            _shut_down(self.connection.socket)

    def _throw(self) -> None:
        if self._inside:
            self._greenlet.throw(Ended(str(self.ended)))

    def beat(self) -> None:
        """Send a heartbeat beside the server, if nothing can come in between."""
        connection = self.connection
        if not self._inside or not self._beside or connection is None:
            return
        if not connection.direct(self.given):
            return
        chunk = b"%X\r\n%b\r\n" % (len(HEARTBEAT), HEARTBEAT) if connection.chunked else HEARTBEAT
        try:
            sent = os.write(connection.socket.fileno(), chunk)
        except BlockingIOError:
            sent = len(chunk)  # A full buffer: the client has more than a heartbeat to read.
        except OSError:
            self.end(LEFT)
            return
        self.wrote_at = time.monotonic()
        if sent < len(chunk):
            # The rest would have to come before the next block, which is the server's to send.
            _shut_down(connection.socket)


class _Pump:
    """Runs a source in a greenlet of its own, and hands its items over one by one."""

    def __init__(self, client: GreenletClient, items: Iterator[Any]) -> None:
        self._channel = Channel()
        self._error: BaseException | None = None
        context = contextvars.copy_context()
        self._greenlet = gevent.spawn(context.run, self._run, client, items)

    def _run(self, client: GreenletClient, items: Iterator[Any]) -> None:
        try:
            while True:
                item = Client.pull(client, items)
                self._channel.put((item, None))
        except BaseException as error:
            # Raised again by `take`, in the stream's greenlet, which knows what it means.
            self._error = error
        finally:
            Client.close(client, items)
        self._channel.put((None, self._error))

    def take(self, seconds: float) -> Any:
        """Return the next item, or None if there is none after ``seconds``."""
        try:
            item, error = self._channel.get(timeout=seconds)
        except Empty:
            return None
        if error is not None:
            raise error
        return item

    def stop(self) -> None:
        if not self._greenlet.dead:
            self._greenlet.kill(Ended(LEFT), block=False)


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


def _shut_down(connected: Any) -> None:
    with contextlib.suppress(OSError):  # It may be closed already, which is what was wanted.
        connected.shutdown(socket.SHUT_RDWR)
