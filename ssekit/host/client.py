"""What the process around a stream can do: see a client disconnect, wait, and end.

A stream and a source ask this package, and never look at gevent, threads or signals themselves.
One `Client` stands for one client of one stream; which kind it is depends on what is in ``environ``
and on what has been patched already, and only then is gevent imported:

* `ssekit.host.greenlets` under gevent: everything works, also while a source sleeps,
* `ssekit.host.threads` in any other WSGI server: what works where a source waits in our own code,
* `ssekit.host.process` in a CGI script or a terminal: one stream has the whole process.

The base class here knows nobody: it is what ``every`` and a subscription use outside a stream.
"""

from __future__ import annotations

import math
import threading
import time
from _thread import RLock  # which gevent leaves as it is
from collections.abc import Callable, Iterator
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar

from ssekit.host.connection import Connection

T = TypeVar("T")

DISCONNECTED = "client disconnected"
ENDING = "process ending"
EXPIRED = "lifetime over"

LONGEST = 3600.0
"""Seconds: the longest single wait; a longer one is several."""


class Ended(BaseException):
    """Thrown into a source that must end, so that its ``finally`` blocks run.

    Not an `Exception`, like ``GeneratorExit``: ``except Exception`` in a source must not keep it
    alive.  ``reason`` is one of `DISCONNECTED`, `ENDING` and `EXPIRED`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def failed(error: BaseException) -> bool:
    """Tell whether an error is the failure of the code that raised it, and no way to end it.

    gevent's Timeout, for one, is no `Exception`, and yet is nobody else's than the source's.
    """
    passing = (Ended, SystemExit, KeyboardInterrupt, GeneratorExit)
    return not isinstance(error, passing) and type(error).__name__ != "GreenletExit"


class Client:
    """One client of one stream.

    A stream calls `attach` once the server has sent the headers, `enter` and `leave` around every
    piece of the source's own code (or `pull`, which does both), `wrote` for every block that it
    gives to the server, and `detach` at the end.  A source's code calls `wait`.
    """

    def __init__(self, heartbeat: float = math.inf) -> None:
        self.heartbeat = heartbeat
        """Seconds without a byte after which a heartbeat is due."""
        self.ended: str | None = None
        """Why the source has to end, once it has to."""
        self.given = 0
        """Bytes of the body that were sent, or given to the server."""
        self.events = 0
        """Events that were."""
        self.wrote_at = time.monotonic()
        self.has_body = False
        """Whether the request has a body, which the source may read while the server is there."""
        self.connection: Connection | None = None
        self.run: Any = None
        """What `ssekit.script` sends through, where a script streams to this client."""
        self._flag: threading.Event | None = None

    def attach(self, connection: Connection | None) -> None:
        """Take the connection that the server uses; None where the server is not known."""
        self.connection = connection

    def can_leave(self, connection: Connection) -> bool:
        """Tell whether the connection can be taken over from the server."""
        return False

    def continue_alone(
        self,
        connection: Connection,
        next_block: Callable[[], bytes],
        close: Callable[[], None],
    ) -> bool:
        """Take the connection over, and send the rest of the stream beside the server.

        ``next_block`` is called until it raises StopIteration, then ``close``; the server is told
        that its answer is complete.  On False, where that is not possible, nothing has changed.
        """
        return False

    def call_alone(self, connection: Connection | None, function: Callable[[], T]) -> T | None:
        """Call a function that sends a whole answer, from inside the WSGI call.

        It gets a context of its own: what it sets there is not set for the next request.  Returns
        what it returns, or None once it has left the server with `leave_server`, and goes on
        beside it.
        """
        return copy_context().run(function)

    def leave_server(self, connection: Connection) -> Connection | None:
        """Take the connection over, in a function that `call_alone` has called.

        Returns what to write to, which the function has to end; None where this is not possible.
        The function calls `release_server` as soon as it holds nothing of the request any more.
        """
        return None

    def release_server(self) -> None:
        """Let the server end its part now, so that what it holds is free for the next client."""

    def detach(self) -> None:
        """Forget the connection: the stream is over."""
        self.connection = None

    def enter(self) -> None:
        """Let the source's code run from here on.  Raises `Ended` if it must not."""
        self.check()

    def leave(self) -> None:
        """The source's code has given something; from here on the server runs."""

    def check(self) -> None:
        """Raise `Ended` if the source has to end."""
        if self.ended is not None:
            raise Ended(self.ended)

    def pull(self, items: Iterator[T]) -> T:
        """Return the source's next item.  Raises what the source raises, and `Ended`."""
        token = _current.set(self)
        try:
            self.enter()
            try:
                return next(items)
            finally:
                self.leave()
        finally:
            _current.reset(token)

    def next_of(self, items: Iterator[T], encode: Callable[[T], bytes]) -> tuple[int, bytes]:
        """Return how many events the source's next item is, and its block.

        A client that was taken over sends them itself, for as long as the source goes on.
        """
        block = encode(self.pull(items))
        return (1, block) if block else (0, b"")

    def close(self, items: object) -> None:
        """Close the source's iterator, so that its ``finally`` blocks run."""
        close = getattr(items, "close", None)
        if close is not None:
            close()

    def wrote(self, block: bytes) -> None:
        """Count a block that goes to the server now."""
        self.given += len(block)
        self.wrote_at = time.monotonic()

    def beat_due(self) -> float:
        """Seconds until a heartbeat is due; zero or less when it is."""
        return self.wrote_at + self.heartbeat - time.monotonic()

    def idle(self, seconds: float | None = None) -> None:
        """Wait until a heartbeat is due, where the stream's own code runs and not the source's.

        It may return at once, and when the stream has to end: `check` tells.
        """
        self.enter()
        try:
            due = max(self.beat_due(), 0)
            self.wait(due if seconds is None else min(due, seconds))
        finally:
            self.leave()

    def wait(self, seconds: float | None = None) -> bool:
        """Block until `wake` was called (true) or ``seconds`` have passed.  Raises `Ended`."""
        self.check()
        awake = self._awake()
        woken = self._sleep(awake, seconds)
        awake.clear()
        self.check()
        return woken

    def _sleep(self, awake: threading.Event, seconds: float | None) -> bool:
        if seconds is not None:
            return awake.wait(seconds)
        # gevent takes a thread of its own that waits without end for one that waits in vain.
        while not awake.wait(LONGEST):
            pass
        return True

    def wake(self) -> None:
        """End the wait that goes on, or else the next one, from any thread."""
        self._awake().set()

    def _awake(self) -> threading.Event:
        # Made once it is needed, and only once: `wait` and `wake` may both be the first.
        if self._flag is None:
            with _making:
                self._flag = self._flag or threading.Event()
        return self._flag


_making = RLock()
_current: ContextVar[Client | None] = ContextVar("ssekit_client", default=None)


class _Process:
    client: Client | None = None


_process = _Process()


def current() -> Client:
    """Return the client that the running code streams to; a client of nothing if there is none."""
    return _current.get() or _process.client or Client()


def become(client: Client, *, everywhere: bool = False) -> None:
    """Make ``client`` the current one for the rest of this context.

    ``everywhere``: and wherever no other one is, in all threads, because it has the process.
    """
    _current.set(client)
    if everywhere:
        _process.client = client
