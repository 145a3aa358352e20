"""How one thread or greenlet wakes another, in any combination.

The brokers use this; it knows no log.  Two things of the standard library are not enough once
gevent has patched them: a patched lock or condition that is shared by a greenlet and a native
thread can miss its wake-up, and a patched socket belongs to the thread that made it.  So a wake-up
is a pipe, which any thread may write to, and waiting is `select.poll`, looked up when it is called:
natively it blocks the thread, patched it parks the greenlet.

`NativeLock` is the interpreter's own lock, which gevent leaves alone.  Hold it only while nothing
waits: a greenlet that waited while holding it would block the whole thread.
"""

from __future__ import annotations

import math
import os
import select
from _thread import RLock as NativeLock
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

__all__ = ["NativeLock", "Wakeup", "Wakeups"]

_LONGEST = 3600.0  # a poll's milliseconds are a C int


class Wakeup:
    """Notified from anywhere, and waited for by one waiter at a time."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def fileno(self) -> int:
        """Return the descriptor that is readable once `notify` has been called."""
        return self._reader

    def notify(self) -> None:
        """End the wait in progress, or else the next one; from any thread."""
        with suppress(BlockingIOError):  # The pipe is full of notifications nobody has seen yet.
            os.write(self._writer, b"\0")

    def clear(self) -> None:
        """Forget the notifications so far."""
        try:
            while len(os.read(self._reader, 4096)) == 4096:
                pass
        except BlockingIOError:
            pass  # There are no more.

    def wait(self, timeout: float, *others: int) -> list[int]:
        """Wait until it is notified, or one of the other descriptors can be read.

        Returns the descriptors that ended the wait, none after ``timeout`` seconds.
        """
        poll = select.poll()
        for descriptor in (self.fileno(), *others):
            poll.register(descriptor, select.POLLIN)
        ready = poll.poll(math.ceil(min(max(timeout, 0.0), _LONGEST) * 1000))
        self.clear()
        return [descriptor for descriptor, _ in ready]

    def usable(self) -> bool:
        """Tell whether it can serve another wait."""
        return True

    def close(self) -> None:
        """Release what it holds."""
        os.close(self._reader)
        os.close(self._writer)

    def abandon(self) -> None:
        """Close this process's copy after a fork, and touch nothing that the parent uses."""
        self.close()


class Wakeups:
    """The wake-ups of all waiters; kept for the next wait, so that waiting opens nothing."""

    def __init__(self, make: Callable[[], Wakeup] = Wakeup) -> None:
        self._make = make
        self._lock = NativeLock()
        self._waiting: set[Wakeup] = set()
        self._idle: list[Wakeup] = []
        self._closed = False

    @contextmanager
    def waiting(self) -> Iterator[Wakeup]:
        """Lend a wake-up that `notify` reaches.

        Take it first and check your condition then, so that no notification is missed.
        """
        with self._lock:
            wakeup = self._idle.pop() if self._idle else None
        if wakeup is None:
            wakeup = self._make()
        with self._lock:
            self._waiting.add(wakeup)
        try:
            wakeup.clear()
            yield wakeup
        finally:
            usable = wakeup.usable()
            with self._lock:
                if wakeup in self._waiting:  # Else this is a forked child, which abandoned it.
                    self._waiting.remove(wakeup)
                    if usable and not self._closed:
                        self._idle.append(wakeup)
                    else:
                        wakeup.close()

    def notify(self) -> None:
        """Wake every waiter; from any thread."""
        with self._lock:
            for wakeup in self._waiting:
                wakeup.notify()

    def close(self) -> None:
        """Wake every waiter for the last time; each wake-up closes when its waiter returns it."""
        with self._lock:
            self._closed = True
            self.notify()
            for wakeup in self._idle:
                wakeup.close()
            self._idle.clear()

    def abandon(self) -> None:
        """Close this process's copies after a fork."""
        for wakeup in (*self._waiting, *self._idle):
            wakeup.abandon()
        self._lock = NativeLock()
        self._waiting.clear()
        self._idle.clear()
