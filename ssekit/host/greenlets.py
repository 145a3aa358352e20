"""Clients under gevent: gunicorn's gevent worker, or gevent's own server.

One timer and one watcher per process serve all clients from the event loop:

* that a client has disconnected is seen at once, and `Ended` is thrown into the greenlet where the
  source sleeps or waits; never while the server is writing, as half an event would go out,
* a heartbeat is one small write beside the server, between two blocks, while the source sleeps,
* a process that was told to end ends every source the same way.

Writing beside the server needs a plain socket and nothing on the way that changes bytes.  Where it
is so, and the server can be told that its answer is complete, the stream is *taken over*
(`continue_alone`): it goes on in a fresh greenlet with a shallow stack, and the server's, with the
request and all that hangs on it, is gone.  Elsewhere the source runs in the server's greenlet.

Where bytes are changed on the way (compression, other middleware, TLS in the server), the source
gets a second greenlet, and the server's waits for it and gives the heartbeats to the server as
blocks.  A stream that only waits in our own code (`idle`, a hub's stream) needs neither: it is
woken for a heartbeat.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from gevent import get_hub, getcurrent
from greenlet import greenlet

from ssekit.host.chunks import chunk
from ssekit.host.client import DISCONNECTED, ENDING, Client, Ended, become
from ssekit.host.connection import Connection, plain
from ssekit.host.eventloop import loop_of_process
from ssekit.host.greenlet_clients import clients_of_process
from ssekit.host.logs import Logger
from ssekit.host.pump import Pump
from ssekit.host.taken import TakenConnection
from ssekit.host.timers import timers_of_process
from ssekit.host.turns import wait_for_next_turn
from ssekit.wire import HEARTBEAT

log = Logger("ssekit.host")

TAKE_OVER = os.environ.get("SSEKIT_FANOUT") != "off"
"""Whether streams may leave the server's greenlets; to look for faults."""
LONGEST_TURN = 0.02
"""Seconds after which a source lets the event loop run, if it has not waited for anything."""


T = TypeVar("T")
switch: Any = greenlet.switch
"""To the hub: gevent's own way looks for a hook first that only its own greenlets have."""


class GreenletClient(Client):
    """One client, served by one greenlet."""

    def __init__(self, heartbeat: float) -> None:
        super().__init__(heartbeat)
        self.descriptor = -1
        self._loop = loop_of_process()
        self._clients = clients_of_process()
        self._timers = timers_of_process()
        self._greenlet: Any = None
        self._inside = False
        self._idle = False
        self._woken = False
        self._waiters: list[Any] = []
        self._beside: bool | None = None
        self._pump: Pump | None = None
        self._alone = False
        self._server: Any = None  # its greenlet, while that waits in `call_alone`
        self._parked = False  # alone, in `wait`, with a time set
        self._turn = 0.0

    def attach(self, connection: Connection | None) -> None:
        super().attach(connection)
        self._beside = (
            connection is not None and plain(connection.socket) and connection.direct(self.given)
        )
        if connection is not None:
            self._loop.ends_with(connection)
            if connection.socket is not None:
                self.descriptor = connection.socket.fileno()
        self._clients.add(self)

    def can_leave(self, connection: Connection) -> bool:
        return (
            TAKE_OVER
            and not self.has_body
            and connection.can_abandon
            and plain(connection.socket)
            and connection.direct(self.given)
        )

    def continue_alone(
        self,
        connection: Connection,
        next_block: Callable[[], bytes],
        close: Callable[[], None],
    ) -> bool:
        if not self.can_leave(connection):
            return False
        taken = self._take(connection)
        if taken is None:
            return False
        hub = get_hub()
        alone = greenlet(self._send_all, hub)
        alone.gr_context = getcurrent().gr_context  # The same one: tokens of it stay valid.
        self._greenlet = alone
        self._alone = True
        self.attach(taken)
        hub.loop.run_callback(alone.switch, taken, next_block, close)
        return True

    def call_alone(self, connection: Connection | None, function: Callable[[], T]) -> T | None:
        if connection is None or not (
            TAKE_OVER and not self.has_body and connection.can_abandon and plain(connection.socket)
        ):
            return super().call_alone(connection, function)
        self._server = getcurrent()
        results: list[tuple[T | None, BaseException | None]] = []
        alone = greenlet(self._call, get_hub())
        alone.gr_context = contextvars.copy_context()
        try:
            switch(alone, function, results)
        except BaseException:
            self._server = None
            self.end(ENDING)
            raise
        if not results:
            return None
        value, error = results.pop()
        if error is not None:
            raise error
        return value

    def _call(
        self, function: Callable[[], T], results: list[tuple[T | None, BaseException | None]]
    ) -> None:
        try:
            results.append((function(), None))
        except BaseException as error:
            if self._server is None:
                log.exception("a stream failed")  # Nothing else would see it.
            else:
                results.append((None, error))  # The server's greenlet raises it.
        if self._server is not None:
            get_hub().loop.run_callback(self._server.switch)
            self._server = None

    def leave_server(self, connection: Connection) -> Connection | None:
        if self._server is None or not self.can_leave(connection):
            return None
        taken = self._take(connection)
        if taken is not None:
            self._alone = True
            self._greenlet = getcurrent()
            self.attach(taken)
        return taken

    def release_server(self) -> None:
        server, self._server = self._server, None
        get_hub().loop.run_callback(getcurrent().switch)
        switch(server)

    def _take(self, connection: Connection) -> TakenConnection | None:
        try:
            return TakenConnection(connection)
        except OSError as error:
            log.warning("a stream could not be taken over, and keeps its greenlet: %s", error)
            return None

    def _send_all(
        self,
        connection: TakenConnection,
        next_block: Callable[[], bytes],
        close: Callable[[], None],
    ) -> None:
        become(self)
        try:
            while True:
                connection.write(next_block())
        except (StopIteration, OSError):
            pass
        except BaseException:  # Nothing else would see it.
            log.exception("a stream failed")
        finally:
            close()
            connection.end()

    def detach(self) -> None:
        self._clients.remove(self)
        self._greenlet = None  # It has us: or both stay until the collector comes.
        super().detach()

    def enter(self) -> None:
        self._let_others_run()
        self.check()
        self._greenlet = getcurrent()
        self._inside = True

    def _let_others_run(self) -> None:
        # A source that never waits, with a client that reads as fast, would be all that runs.  If
        # the event loop has begun a turn since the last event, then it has waited.
        turn = self._loop.turn_began()
        if turn == self._turn and self._loop.turn() > LONGEST_TURN:
            wait_for_next_turn()
        self._turn = turn

    def leave(self) -> None:
        self._inside = False

    def pull(self, items: Iterator[Any]) -> Any:
        if self._beside is not False:
            return super().pull(items)
        if self._pump is None:
            self._pump = Pump(self, items)
        self.check()
        return self._pump.take(max(self.beat_due(), 0))

    def next_of(self, items: Iterator[Any], encode: Callable[[Any], bytes]) -> tuple[int, bytes]:
        connection = self.connection
        if not self._alone or connection is None:
            return super().next_of(items, encode)
        # What a stream and its server do elsewhere, in few steps: greenlet and context are the
        # stream's own, and nothing stands between us and the client.
        try:
            while True:
                self._let_others_run()
                self._inside = True
                if self.ended is not None:
                    self.check()
                item = next(items)
                self._inside = False
                block = encode(item)
                if block:
                    self.events += 1
                elif self.beat_due() <= 0:
                    block = HEARTBEAT
                else:
                    continue
                self.given += len(block)
                self.wrote_at = time.monotonic()
                try:
                    connection.write(block)
                except OSError as error:
                    self.ended = DISCONNECTED
                    raise Ended(DISCONNECTED) from error
        finally:
            self._inside = False

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
        if self._alone and seconds is not None and getcurrent() is self._greenlet:
            self._park(seconds)
        elif self.ended is None:
            self._pause(seconds)
        woken, self._woken = self._woken, False
        if self.ended is not None:
            self.check()
        return woken

    def _park(self, seconds: float) -> None:
        """Wait as `_pause` does, in fewer steps: the greenlet is the stream's own."""
        if self.ended is not None or self._woken:
            return
        moment = self._timers.at(time.monotonic() + seconds, seconds, self)
        self._parked = True
        try:
            if not self._woken:
                switch(self._timers.hub)
        finally:
            if self._parked:  # It was woken by something else.
                self._parked = False
                self._timers.cancel(moment, self)

    def due(self) -> None:
        """Go on: the time that was set in `wait` has come."""
        if self._parked:
            self._parked = False
            self._greenlet.switch()

    def _pause(self, seconds: float | None) -> None:
        # gevent's own Event does more: nobody here is woken but from the process's loop.
        waiter = getcurrent()
        wait = None
        self._waiters.append(waiter)
        try:
            if seconds is not None:
                wait = self._timers.wake_after(seconds, waiter)
            if not self._woken:  # Asked last: another thread may wake it at any time.
                switch(self._timers.hub)
        finally:
            self._waiters.remove(waiter)
            if wait is not None:
                wait.cancel()

    def wake(self) -> None:
        self._woken = True
        if self._waiters or self._parked:
            self._loop.resume(self)

    def resume(self) -> None:
        """Let those who wait go on; from the event loop only."""
        if self._parked:
            self._greenlet.switch()
        # One, but for a source that waits in several greenlets.
        for waiter in tuple(self._waiters):
            if waiter in self._waiters:
                waiter.switch()

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


def _shut_down(connected: Any) -> None:
    with contextlib.suppress(OSError):  # It may be closed already, which is what was wanted.
        connected.shutdown(socket.SHUT_RDWR)
