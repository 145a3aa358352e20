"""A client that is served from the event loop: at each tick something is called and sent.

It has no greenlet while it waits for its tick.  One that does not read gets no tick until it has
taken the last block.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from gevent import getcurrent

from ssekit.host.client import DISCONNECTED, Ended
from ssekit.host.connection import Connection
from ssekit.host.greenlet_clients import GreenletClients, clients_of_process
from ssekit.host.logs import Logger
from ssekit.host.outlet import Outlet
from ssekit.host.timers import Timers, timers_of_process
from ssekit.host.workers import Workers, workers_of_process
from ssekit.wire import HEARTBEAT

log = Logger("ssekit.host")


class TickingClient:
    """One client; a subclass says what it is sent (`produce`), and what to do at the end.

    It ticks every ``seconds``, the first time at once, then without drift; missed ticks are
    skipped.
    """

    __slots__ = (
        "_moment",
        "_outlet",
        "_running",
        "_seconds",
        "_shared",
        "_start",
        "descriptor",
        "ended",
        "heartbeat",
        "number",
        "wrote_at",
    )

    def __init__(
        self, connection: Connection, seconds: float, heartbeat: float, first: bytes = b""
    ) -> None:
        """Send the ``first`` bytes, and begin to tick.

        Raises OSError if the process has no descriptor left; then nothing has changed.
        """
        self._outlet: Outlet | None = Outlet(connection, heartbeat)
        head = connection.abandon()
        if head or first:
            with suppress(OSError):  # It is seen below that the client has left.
                self._outlet.write(first, head)
        self.descriptor = self._outlet.descriptor
        self.ended: str | None = None
        self.heartbeat = heartbeat
        self.number = 0
        """Of the tick, from 0; counted with those that were missed."""
        self._seconds = seconds
        self._start = self.wrote_at = time.monotonic()
        self._running: Any = None  # the greenlet that runs `produce`
        self._moment = 0
        self._shared = shared = _of_process()
        shared.clients.add(self)
        shared.clients.ends_with(connection)
        shared.workers.add(self)

    def produce(self) -> bytes:
        """Return what to send at this tick, empty for nothing; it may wait.

        What it raises ends the stream.
        """
        raise NotImplementedError

    def reason(self, error: BaseException) -> str:
        """Return why an error of `produce` ends the stream."""
        raise NotImplementedError

    def last_block(self, why: str) -> tuple[bytes, bool]:
        """Return what is sent last, and whether the body is cut after it."""
        raise NotImplementedError

    def was_closed(self, why: str) -> None:
        """The stream is over."""
        raise NotImplementedError

    def due(self) -> None:
        """It is time for the next tick."""
        self._shared.workers.add(self)

    def run(self) -> None:
        """Tick; in a greenlet, so that it may wait."""
        outlet = self._outlet
        if outlet is None:
            return
        if not outlet.busy:
            self._running = getcurrent()
            try:
                block = self.produce()
            except BaseException as error:
                self._close(error.reason if isinstance(error, Ended) else self.reason(error))
                return
            finally:
                self._running = None
            if self.ended is not None:
                self._close(self.ended)
                return
            now = time.monotonic()
            if block:
                self.wrote_at = now
                try:
                    outlet.write(block)
                except OSError:
                    self._close(DISCONNECTED)
                    return
        else:
            now = time.monotonic()
        start, seconds = self._start, self._seconds
        number = int((now - start) / seconds)
        self.number = number = (number if number > self.number else self.number) + 1
        self._moment = self._shared.timers.at(start + number * seconds, seconds, self)

    def disconnected(self) -> None:
        """The client has disconnected."""
        self.end(DISCONNECTED)

    def end(self, reason: str) -> None:
        """End the stream; a function that waits has `Ended` raised in it."""
        if self.ended is None and self._outlet is not None:
            self.ended = reason
            if self._running is None:
                self._close(reason)
            else:
                self._shared.clients.was_ended(self)
                self._running.throw(Ended(reason))

    def insist(self) -> None:
        """End it again, as it has had time to."""
        if self._running is not None:
            log.warning("a source has caught ssekit.host.Ended and goes on: it is ended again")
            self._running.throw(Ended(str(self.ended)))

    def beat(self) -> None:
        """Send a heartbeat, which is due, also while a function waits."""
        outlet = self._outlet
        if outlet is not None and not outlet.busy:
            self.wrote_at = time.monotonic()
            try:
                outlet.write(HEARTBEAT)
            except OSError:
                self.end(DISCONNECTED)

    def _close(self, why: str) -> None:
        outlet, self._outlet = self._outlet, None
        if outlet is None:
            return
        self.ended = why
        shared = self._shared
        shared.clients.remove(self)
        shared.timers.cancel(self._moment, self)
        last, cut = self.last_block(why) if why != DISCONNECTED else (b"", True)
        outlet.end(last, cut)
        self.was_closed(why)


class _Shared:
    """What all clients of a process share."""

    def __init__(self) -> None:
        self.clients: GreenletClients = clients_of_process()
        self.timers: Timers = timers_of_process()
        self.workers: Workers = workers_of_process()


_shared: list[_Shared] = []


def _of_process() -> _Shared:
    if not _shared or _shared[0].clients is not clients_of_process():
        _shared[:] = [_Shared()]
    return _shared[0]
