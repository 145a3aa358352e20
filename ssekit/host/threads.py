"""Clients of a server that gives each its thread: gthread, waitress, wsgiref, and sync workers.

A thread that sleeps in the source's own code cannot be reached.  What can be done is done where it
waits in ours (``every``, a subscription): there it sends heartbeats, with the server's own write,
and ends within a tick when the client has left or the process was told to end.  One daemon thread
per process watches for all.
"""

from __future__ import annotations

import os
import select
import threading
import time

from ssekit.host.client import DISCONNECTED, ENDING, Client
from ssekit.host.connection import Connection
from ssekit.host.disconnects import Disconnects
from ssekit.wire import HEARTBEAT

TICK = 0.05
"""Seconds between two looks at whether the process is ending."""


class ThreadClient(Client):
    """One client, served by one thread."""

    descriptor = -1

    def attach(self, connection: Connection | None) -> None:
        super().attach(connection)
        if connection is not None:
            _watcher().add(self)

    def detach(self) -> None:
        if self.connection is not None:
            _watcher().remove(self)
        super().detach()

    def disconnected(self) -> None:
        """The client has disconnected."""
        self.end(DISCONNECTED)

    def end(self, reason: str) -> None:
        """Have the source end at its next wait or yield."""
        self.ended = self.ended or reason
        self.wake()

    def end_with_process(self) -> None:
        """Have the source end if the process was told to."""
        connection = self.connection
        if self.ended is None and connection is not None and connection.ending():
            connection.close_after()
            connection.expect_nothing()
            self.end(ENDING)

    def _sleep(self, awake: threading.Event, seconds: float | None) -> bool:
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            left = None if until is None else until - time.monotonic()
            beat = self.beat_due() if self._can_beat() else None
            limits = [limit for limit in (left, beat) if limit is not None]
            if awake.wait(max(min(limits), 0) if limits else None):
                return True
            if until is not None and time.monotonic() >= until:
                return False
            if beat is not None and self.beat_due() <= 0:
                self._beat()

    def _can_beat(self) -> bool:
        return self.connection is not None and self.connection.direct(self.given)

    def _beat(self) -> None:
        # In the thread that the server iterates in, between two blocks, with the server's write.
        connection = self.connection
        if connection is not None:
            try:
                connection.write(HEARTBEAT)
            except OSError:
                self.end(DISCONNECTED)
            self.wrote(HEARTBEAT)


class _Watcher:
    """The thread that sees for all clients of a process who left and that the process ends."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self._disconnects = Disconnects()
        self._clients: set[ThreadClient] = set()
        self._some = threading.Event()
        self._lock = threading.Lock()
        threading.Thread(target=self._run, name="ssekit-watcher", daemon=True).start()

    def add(self, client: ThreadClient) -> None:
        connection = client.connection
        socket = connection.socket if connection is not None else None
        with self._lock:
            self._clients.add(client)
            if socket is not None:
                client.descriptor = socket.fileno()
                self._disconnects.watch(client.descriptor, client)
            self._some.set()

    def remove(self, client: ThreadClient) -> None:
        with self._lock:
            self._clients.discard(client)
            self._disconnects.forget(client.descriptor)
            if not self._clients:
                self._some.clear()

    def _run(self) -> None:
        someone_left = select.poll()
        if self._disconnects.fileno() >= 0:
            someone_left.register(self._disconnects.fileno(), select.POLLIN)
        while self._some.wait():
            someone_left.poll(TICK * 1000)
            # Under the lock no descriptor can be closed and given to the next client meanwhile.
            with self._lock:
                self._disconnects.collect()
                for client in self._clients:
                    client.end_with_process()


_watchers: list[_Watcher] = []
_watchers_lock = threading.Lock()


def _watcher() -> _Watcher:
    # One per process: a thread does not survive a fork.
    with _watchers_lock:
        if not _watchers or _watchers[0].process != os.getpid():
            _watchers[:] = [_Watcher()]
        return _watchers[0]
