"""Clients under gevent: gunicorn's gevent worker, or gevent's own server.

The source runs in the server's own greenlet, so a stream costs no second one.  One timer and one
watcher per process serve all clients from the event loop:

* that a client has disconnected is seen at once, and `Ended` is thrown into the greenlet where the
  source sleeps or waits; never while the server is writing, as half an event would go out,
* a heartbeat is one small write beside the server, between two blocks, while the source sleeps,
* a process that was told to end ends every source the same way.

Writing beside the server needs a plain socket and nothing on the way that changes bytes.  Where it
is not so (compression, other middleware, TLS in the server), the source gets a greenlet of its own,
and the server's greenlet waits for it and gives the heartbeats to the server as blocks.  A stream
that only waits in our own code (`idle`, a hub's stream) needs neither: it is woken for a heartbeat.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

import gevent
from gevent import get_hub, getcurrent
from gevent.queue import Channel, Empty

from ssekit.host.chunks import chunk
from ssekit.host.client import DISCONNECTED, Client, Ended
from ssekit.host.connection import Connection, plain
from ssekit.host.eventloop import loop_of_process
from ssekit.host.greenlet_clients import clients_of_process
from ssekit.host.logs import Logger
from ssekit.wire import HEARTBEAT

log = Logger("ssekit.host")

LONGEST_TURN = 0.02
"""Seconds after which a source lets the event loop run, if it has not waited for anything."""


class GreenletClient(Client):
    """One client, served by one greenlet."""

    def __init__(self, heartbeat: float) -> None:
        super().__init__(heartbeat)
        self.descriptor = -1
        self._loop = loop_of_process()
        self._clients = clients_of_process()
        self._greenlet: Any = None
        self._inside = False
        self._idle = False
        self._woken = False
        self._waiters: list[Any] = []
        self._beside: bool | None = None
        self._pump: _Pump | None = None

    def attach(self, connection: Connection | None) -> None:
        super().attach(connection)
        self._beside = (
            connection is not None and plain(connection.socket) and connection.direct(self.given)
        )
        self._clients.add(self)

    def detach(self) -> None:
        self._clients.remove(self)
        self._greenlet = None  # It has us: or both stay until the collector comes.
        super().detach()

    def enter(self) -> None:
        if self._loop.turn() > LONGEST_TURN:
            # A source that never waits, with a client that reads as fast, would be all that runs.
            gevent.sleep(0)
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

    def idle(self, seconds: float | None = None) -> None:
        if self.ended is None:
            self._idle = True
            try:
                self._pause(seconds)
            finally:
                self._idle = False
        self._woken = False

    def wait(self, seconds: float | None = None) -> bool:
        if self.ended is None:
            self._pause(seconds)
        woken, self._woken = self._woken, False
        self.check()
        return woken

    def _pause(self, seconds: float | None) -> None:
        # gevent's own Event does more: nobody here is woken but from the process's loop.
        hub, greenlet = get_hub(), getcurrent()
        timer = None
        self._waiters.append(greenlet)
        try:
            if seconds is not None:
                timer = hub.loop.timer(max(seconds, 0))
                timer.start(self.resume)
            if not self._woken:  # Asked last: another thread may wake it at any time.
                hub.switch()
        finally:
            self._waiters.remove(greenlet)
            if timer is not None:
                timer.close()

    def wake(self) -> None:
        self._woken = True
        if self._waiters:
            self._loop.resume(self)

    def resume(self) -> None:
        """Let those who wait go on; from the event loop only."""
        # One, but for a source that waits in several greenlets.
        for greenlet in tuple(self._waiters):
            if greenlet in self._waiters:
                greenlet.switch()

    def disconnected(self) -> None:
        """The client has disconnected."""
        self.end(DISCONNECTED)

    def end(self, reason: str) -> None:
        """Ask the source to end; from the event loop only."""
        if self.ended is not None:
            return
        self.ended = reason
        self._clients.was_ended(self)
        if self.connection is not None:
            self.connection.close_after()
        self._throw()

    def insist(self) -> None:
        """Ask again, as the source was asked to end and has had time to."""
        if self._idle:
            return  # It is woken, and has not had its turn: there are many.
        if self._inside:
            log.warning("a source has caught ssekit.host.Ended and goes on: it is ended again")
            self._throw()
        elif self.connection is not None and self.connection.socket is not None:
            # The server waits to write to a client that does not read; only the socket ends that.
            _shut_down(self.connection.socket)

    def _throw(self) -> None:
        if self._idle:
            self.wake()
        elif self._inside:
            self._greenlet.throw(Ended(str(self.ended)))

    def beat(self) -> None:
        """Send a heartbeat beside the server, if nothing can come in between."""
        if self._idle:
            self.wake()  # The stream gives it to the server.
            return
        connection = self.connection
        if not self._inside or not self._beside or connection is None:
            return
        if not connection.direct(self.given):
            return
        beat = chunk(HEARTBEAT, connection.chunked)
        try:
            sent = os.write(connection.socket.fileno(), beat)
        except BlockingIOError:
            sent = len(beat)  # A full buffer: the client has more than a heartbeat to read.
        except OSError:
            self.end(DISCONNECTED)
            return
        self.wrote_at = time.monotonic()
        if sent < len(beat):
            # The rest would have to come before the next block, which is the server's to send.
            _shut_down(connection.socket)


class _Pump:
    """Runs a source in a greenlet of its own, and hands its items over one by one."""

    def __init__(self, client: GreenletClient, items: Iterator[Any]) -> None:
        self._channel = Channel()
        self._error: BaseException | None = None
        self._wanted = True
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
        if self._wanted:  # Else nobody would ever take it, and the greenlet would stay for good.
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
        self._wanted = False
        if not self._greenlet.dead:
            self._greenlet.kill(Ended(DISCONNECTED), block=False)


def _shut_down(connected: Any) -> None:
    with contextlib.suppress(OSError):  # It may be closed already, which is what was wanted.
        connected.shutdown(socket.SHUT_RDWR)
