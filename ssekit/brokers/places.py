"""A bounded number of places, for which threads and greenlets wait in order.

`threading.Semaphore` has a lock of its own, on which a signal handler or a ``__del__`` that comes
in the middle of it would wait forever.  Here are only steps that nothing comes in the middle of:
those of a list and of a deque.
"""

from __future__ import annotations

import threading
from collections import deque


class Places:
    def __init__(self, many: int) -> None:
        self._free = [None] * many
        self._waiting: deque[threading.Lock] = deque()

    def take(self, timeout: float) -> bool:
        """Take a place; false if there is none within ``timeout`` seconds."""
        if self._take_free():
            return True
        mine = threading.Lock()  # Looked up now: gevent may have patched it.
        mine.acquire()
        self._waiting.append(mine)
        if self._take_free():  # One was given back before we were in the queue.
            if not self._leave(mine):
                self.give_back()  # And another one was handed to us after that.
            return True
        try:
            if mine.acquire(timeout=timeout):
                return True
        except BaseException:  # Such as a greenlet that is ended.
            if not self._leave(mine):
                self.give_back()
            raise
        return not self._leave(mine)

    def give_back(self) -> None:
        """Return a place: the one that has waited longest gets it."""
        self._free.append(None)
        while self._waiting and self._take_free():
            try:
                first = self._waiting.popleft()
            except IndexError:
                self._free.append(None)  # The last one that waited has got one meanwhile.
            else:
                first.release()

    def _take_free(self) -> bool:
        try:
            self._free.pop()
        except IndexError:
            return False
        return True

    def _leave(self, mine: threading.Lock) -> bool:
        """Leave the queue; false if a place was handed over before."""
        try:
            self._waiting.remove(mine)
        except ValueError:
            return False
        return True
