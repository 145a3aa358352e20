"""The clients of a process that have a greenlet each, as the event loop serves them."""

from __future__ import annotations

import os
from itertools import takewhile
from typing import Protocol

from ssekit.host.client import ENDING
from ssekit.host.connection import Connection
from ssekit.host.eventloop import loop_of_process
from ssekit.host.heartbeats import Sender

PATIENCE = 20
"""Turns of `ssekit.host.eventloop.TICK` after which a source that swallowed `Ended` gets it again.

Counted in turns of the event loop, not by the clock: on a busy machine a turn may be long, and
nothing has had more time to end for that.
"""


class Served(Sender, Protocol):
    """One client with a greenlet of its own."""

    descriptor: int
    """To be watched for a disconnect; -1 for none."""

    def disconnected(self) -> None:
        """The client has disconnected."""

    def end(self, reason: str) -> None:
        """The source has to end."""

    def insist(self) -> None:
        """The source has to end, and has had time to."""


class GreenletClients:
    """All of one process; a client group of its event loop while it has any."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self._loop = loop_of_process()
        self._clients: dict[Served, None] = {}  # as a set, in half the memory
        self._ended: dict[Served, int] = {}  # and the turn at which to insist
        self._turn = 0

    def __len__(self) -> int:
        return len(self._clients) + len(self._ended)

    def add(self, client: Served) -> None:
        """Serve a client."""
        if not self:
            self._loop.add_group(self)
        self._clients[client] = None
        self._loop.heartbeats.add(client)
        if client.descriptor >= 0:
            self._loop.disconnects.watch(client.descriptor, client)

    def ends_with(self, connection: Connection) -> None:
        """Learn from a connection of the server's whether the process is ending."""
        self._loop.ends_with(connection)

    def remove(self, client: Served) -> None:
        """Serve it no more."""
        if client in self._clients:
            del self._clients[client]
        elif self._ended.pop(client, None) is None:
            return
        self._loop.heartbeats.discard(client)
        self._loop.disconnects.forget(client.descriptor)
        if not self:
            self._loop.remove_group(self)

    def was_ended(self, client: Served) -> None:
        """Insist, should its source still be there after a while."""
        if client in self._clients:
            del self._clients[client]
            self._loop.heartbeats.discard(client)
            self._ended[client] = self._turn + PATIENCE

    def tick(self, now: float) -> None:
        """Insist where it is due."""
        self._turn += 1
        due = takewhile(lambda client: self._ended[client] <= self._turn, self._ended)
        for client in list(due):
            if self._ended.pop(client, None) is not None:
                self._ended[client] = self._turn + PATIENCE  # After those that ended before.
                client.insist()

    def end_all(self) -> None:
        """End every source: the process ends."""
        for client in list(self._clients):
            client.end(ENDING)


_clients: list[GreenletClients] = []


def clients_of_process() -> GreenletClients:
    """Return those of this process; a forked child has its own."""
    if not _clients or _clients[0].process != os.getpid():
        _clients[:] = [GreenletClients()]
    return _clients[0]
