"""How one thread of control wakes another, whatever they are: threads, greenlets, or one of each.

The brokers use this; it knows no log.  Two things of the standard library are not enough once
gevent has patched them: a patched lock or condition that is shared by a greenlet and a native
thread can miss its wake-up, and a patched socket belongs to the thread that made it.  So a bell is
a pipe, which any thread may write to, and waiting is `select.poll`, looked up when it is called:
natively it blocks the thread, patched it parks the greenlet.

The lock is the interpreter's own, which gevent leaves alone.  It may therefore be held only for
moments in which nothing waits: a greenlet that waited while it holds it would block the thread.
"""

from __future__ import annotations

import math
import os
import select
import weakref
from _thread import RLock as NativeLock
from _thread import get_ident
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

__all__ = ["Bell", "Bells", "NativeLock", "around_fork", "on_fork"]

_LONGEST = 3600.0  # a poll's milliseconds are a C int


class Bell:
    """Something to ring from anywhere, and for one waiter at a time to hear."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def fileno(self) -> int:
        return self._reader

    def ring(self) -> None:
        with suppress(BlockingIOError):  # the pipe is full: it has been rung and not yet heard
            os.write(self._writer, b"\0")

    def silence(self) -> None:
        """Take what has been rung so far."""
        try:
            while len(os.read(self._reader, 4096)) == 4096:
                pass
        except BlockingIOError:
            pass  # nothing more

    def wait(self, timeout: float, *others: int) -> list[int]:
        """Wait until it rings, or one of the other descriptors can be read.

        Returns the descriptors that woke it, none after ``timeout`` seconds.
        """
        poll = select.poll()
        for descriptor in (self.fileno(), *others):
            poll.register(descriptor, select.POLLIN)
        ready = poll.poll(math.ceil(min(max(timeout, 0.0), _LONGEST) * 1000))
        self.silence()
        return [descriptor for descriptor, _ in ready]

    def usable(self) -> bool:
        """Whether it can serve for another wait."""
        return True

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)

    def abandon(self) -> None:
        """Close this process's copy after a fork, and touch nothing that the parent uses."""
        self.close()


class Bells:
    """The bells of those who wait; kept for the next wait, so that waiting opens nothing."""

    def __init__(self, make: Callable[[], Bell] = Bell) -> None:
        self._make = make
        self._lock = NativeLock()
        self._waiting: set[Bell] = set()
        self._idle: list[Bell] = []
        self._closed = False

    @contextmanager
    def waiting(self) -> Iterator[Bell]:
        """A bell that `ring` rings.  Take it first and look then, so that nothing is missed."""
        with self._lock:
            bell = self._idle.pop() if self._idle else None
        if bell is None:
            bell = self._make()
        with self._lock:
            self._waiting.add(bell)
        try:
            bell.silence()
            yield bell
        finally:
            usable = bell.usable()
            with self._lock:
                if bell in self._waiting:  # else this is a fork's child that has let go of it
                    self._waiting.remove(bell)
                    if usable and not self._closed:
                        self._idle.append(bell)
                    else:
                        bell.close()

    def ring(self) -> None:
        with self._lock:
            for bell in self._waiting:
                bell.ring()

    def close(self) -> None:
        """Ring for the last time; each bell goes when its waiter has let go of it."""
        with self._lock:
            self._closed = True
            self.ring()
            for bell in self._idle:
                bell.close()
            self._idle.clear()

    def abandon(self) -> None:
        for bell in (*self._waiting, *self._idle):
            bell.abandon()
        self._lock = NativeLock()
        self._waiting.clear()
        self._idle.clear()


class Forks(Protocol):
    def after_fork(self) -> None: ...


class Holds(Protocol):
    def before_fork(self) -> None: ...
    def after_fork_in_parent(self) -> None: ...


_forks: weakref.WeakSet[Forks] = weakref.WeakSet()
_holding: weakref.WeakSet[Holds] = weakref.WeakSet()
_held: dict[int, list[Holds]] = {}  # by the thread that forks


def on_fork(it: Forks) -> None:
    """Have ``it.after_fork()`` called in every child process, before anything else runs there."""
    _forks.add(it)


def around_fork(it: Holds) -> None:
    """Have ``it`` told before each fork as well, and in the parent after it."""
    _holding.add(it)


def _before_fork() -> None:
    held = _held[get_ident()] = list(_holding)
    for it in held:
        it.before_fork()


def _after_fork_in_parent() -> None:
    for it in _held.pop(get_ident()):
        it.after_fork_in_parent()


def _after_fork() -> None:
    _held.clear()
    for it in list(_forks):
        it.after_fork()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork
)
