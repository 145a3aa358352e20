"""Connections for one purpose, kept and lent to one caller at a time.

It knows no database.  A connection that was interrupted is not used again: its next answer might be
that to an old question.  After a fork the child forgets what its parent has.

Each step is one of a list or a set, so that no lock is needed, on which a signal handler or a
``__del__`` would wait forever.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

from ssekit.brokers.interrupted import INTERRUPTING
from ssekit.brokers.places import Places
from ssekit.errors import BrokerUnavailable


class Connection(Protocol):
    """One connection to a database."""

    usable: bool
    """Whether it may be lent again."""

    def has_ended(self) -> bool:
        """Return whether the other end has closed it."""

    def close(self) -> None:
        """Close it; raises nothing."""

    def abandon(self) -> None:
        """Keep a fork's copy of it from the parent's, which goes on using it."""


C = TypeVar("C", bound=Connection)


class Pool(Generic[C]):
    """The connections for ``purpose``, which is a part of an error's text.

    ``most`` of them are in use at once, and others wait for up to ``patience`` seconds.  With None
    there is a connection for each caller.  ``threaded``: any thread may use a connection that
    another one made, also where gevent has patched sockets.
    """

    def __init__(
        self,
        purpose: str,
        open_one: Callable[[], C],
        *,
        most: int | None,
        patience: float,
        threaded: bool,
    ) -> None:
        self._purpose = purpose
        self._open_one = open_one
        self._threaded = threaded
        self._most = most
        self._patience = patience
        self._places = Places(most or 0)
        self._busy: set[int] = set()  # the threads and greenlets that have a place
        self._idle: list[C] = []
        self._all: set[C] = set()
        self._closed = False

    def lend(self) -> Loan[C]:
        """Lend a connection for a block.

        Entering it raises `BrokerUnavailable` if none becomes free in time, or if the caller
        interrupts one that has a connection, and what opening one raises.
        """
        return Loan(self)

    def close(self) -> None:
        """Close each connection, those that are in use when they are returned."""
        self._closed = True
        self.empty()

    def empty(self) -> None:
        """Close the connections that nobody uses."""
        while self._idle:
            with suppress(IndexError):
                self._discard(self._idle.pop())

    def abandon(self) -> None:
        """Forget every connection after a fork; a child then makes another pool."""
        connections, self._all, self._idle = self._all, set(), []
        for connection in connections:
            connection.abandon()

    def _take(self) -> tuple[C, int | None, bool]:
        """Return a connection, who has a place for it, and whether it is kept afterwards."""
        foreign = in_a_foreign_thread()
        kept = self._threaded or not foreign
        me = None if self._most is None or foreign else self._take_place()
        try:
            return (self._take_idle() if kept else None) or self._open(), me, kept
        except BaseException:
            self._return_place(me)
            raise

    def _return(self, connection: C, me: int | None, kept: bool) -> None:
        try:
            if kept and connection.usable and not self._closed and connection in self._all:
                self._idle.append(connection)
                if self._closed:
                    self.empty()
            else:
                self._discard(connection)
        finally:
            self._return_place(me)

    def _take_place(self) -> int:
        me = threading.get_ident()
        if me in self._busy:
            raise BrokerUnavailable(INTERRUPTING)
        taken = False
        try:
            self._busy.add(me)
            taken = self._places.take(self._patience)
        finally:
            if not taken:
                self._busy.discard(me)
        if not taken:
            raise BrokerUnavailable(f"all {self._most} connections {self._purpose} are busy")
        return me

    def _return_place(self, me: int | None) -> None:
        if me is not None:
            self._places.give_back()
            self._busy.discard(me)

    def _open(self) -> C:
        connection = self._open_one()
        self._all.add(connection)
        return connection

    def _take_idle(self) -> C | None:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if not connection.has_ended():
                return connection
            self._discard(connection)

    def _discard(self, connection: C) -> None:
        if connection in self._all:  # else this is a forked child, which has abandoned it
            self._all.discard(connection)
            connection.close()


class Loan(Generic[C]):
    """The block for which a connection is lent."""

    # Not contextlib's, of which a loan took three: they were a tenth of a publish.
    __slots__ = ("_connection", "_kept", "_me", "_pool")

    def __init__(self, pool: Pool[C]) -> None:
        self._pool = pool

    def __enter__(self) -> C:
        self._connection, self._me, self._kept = self._pool._take()
        return self._connection

    def __exit__(self, *_: object) -> None:
        self._pool._return(self._connection, self._me, self._kept)


def in_a_foreign_thread() -> bool:
    """Whether sockets are gevent's, each bound to a thread's loop, and this is a passing thread.

    Only the main thread's loop is sure to live on, so elsewhere such connections are not kept, and
    nobody waits for a place among greenlets.
    """
    if socket.socket.__module__ == "socket":
        return False
    main = os.getpid() if sys.platform == "linux" else threading.main_thread().native_id
    return threading.get_native_id() != main
