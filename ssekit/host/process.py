"""A client that has the whole process to itself: a CGI script (RFC 3875), or a terminal.

Bytes go to standard output, unbuffered.  Nothing else runs here, so signals do what the event loop
does elsewhere: an interval timer (SIGALRM) writes heartbeats while the source blocks, sees that the
reader has closed the pipe, and bounds the life of the stream; SIGTERM ends it.  Python runs signal
handlers between two instructions of the main thread, so `Ended` is raised where the source is, and
not while a block is being written.  A write waits for as long as its reader does not read; only a
process that has to end gives that up.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import threading
import time
from _thread import allocate_lock
from collections.abc import Callable, Iterator
from types import FrameType

from ssekit.host.client import DISCONNECTED, ENDING, EXPIRED, Client, Ended
from ssekit.host.connection import Connection
from ssekit.wire import HEARTBEAT

PATIENCE = 2.0
"""Seconds after which a source that goes on after `Ended` gets it again."""
UNREAD = 1.0
"""Seconds that a process which has to end waits for a reader that does not read."""
_LONGEST = 0.5
"""Seconds that one wait takes: a signal that comes just before it has its handler run after it."""
_AT_ONCE = 4096
"""Bytes that a pipe takes without blocking once it can be written (pipe(7), PIPE_BUF)."""
_GONE = select.POLLERR | select.POLLHUP | select.POLLNVAL
"""Not POLLRDHUP: under Apache's mod_cgid the output is a socket that Apache has half closed,
because the request has no more body, and it still reads every byte."""


Handler = Callable[[int, FrameType | None], None]


class Interrupted(Ended, SystemExit):
    """`Ended` for code in which nothing catches it: the interpreter exits without a traceback."""

    def __init__(self, reason: str, code: int = 0) -> None:
        super().__init__(reason)
        self.code = code


class ProcessClient(Client):
    """The reader of this process's standard output.

    ``max_seconds`` bounds the life of the stream.  ``descriptor`` is where the answer goes, which
    may be blocking or not.  ``exits`` is for a script that the interpreter runs by itself: `Ended`
    is then an exit of the process, also for Ctrl-C.
    """

    def __init__(
        self,
        heartbeat: float = math.inf,
        max_seconds: float = math.inf,
        *,
        descriptor: int = 1,
        exits: bool = False,
    ) -> None:
        super().__init__(heartbeat)
        self._expires = time.monotonic() + max_seconds
        self._life = max_seconds
        self._descriptor = descriptor
        self._exits = exits
        self._code = 0
        self._inside = False
        self._asked_at = 0.0
        self._sent = 0
        self._cut = False  # a block has left in part: nothing may follow it
        self._writing = allocate_lock()
        self._serves = False  # whether the signals are ours
        self._tick = 0.0

    def attach(self, connection: Connection | None = None) -> None:
        """Start the timer; there is no other connection than this process's output."""
        limit = min(self.heartbeat, self._life)
        if self._serves and math.isfinite(limit):
            self._tick = min(1.0, limit / 4)
            signal.setitimer(signal.ITIMER_REAL, self._tick, self._tick)

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Let signals serve this client until the block ends; only the main thread can."""
        handlers: dict[int, Handler] = {
            signal.SIGTERM: self._on_term,
            signal.SIGALRM: self._on_alarm,
        }
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup asks for
            handlers[signal.SIGHUP] = self._on_term
        if self._exits:
            handlers[signal.SIGINT] = self._on_interrupt
        try:
            before = {number: signal.signal(number, handlers[number]) for number in handlers}
        except ValueError:  # This is another thread.
            yield
            return
        self._serves = True
        try:
            yield
        finally:
            self._serves = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)

    def enter(self) -> None:
        # First this, then the look: a signal in between is then raised here at the latest.
        self._inside = True
        self.check()

    def leave(self) -> None:
        self._inside = False

    def check(self) -> None:
        if self.ended is not None:
            raise Interrupted(self.ended, self._code) if self._exits else Ended(self.ended)

    def _sleep(self, awake: threading.Event, seconds: float | None) -> bool:
        deadline = math.inf if seconds is None else time.monotonic() + seconds
        while not awake.wait(min(max(deadline - time.monotonic(), 0), _LONGEST)):
            if time.monotonic() >= deadline:
                return False
        return True

    def send_head(self, head: bytes) -> None:
        """Write what comes before the body."""
        self._write(head)

    def send(self, block: bytes) -> None:
        """Write a block of the body; it has left the process on return.

        Raises `Ended` if the process has to end while the reader does not read.
        """
        self._write(block)
        self._sent += len(block)
        self.wrote_at = time.monotonic()  # It may have waited for its reader for long.

    def send_last(self, block: bytes) -> None:
        """Write the last block, unless the reader does not take it soon."""
        if self._state(UNREAD) & select.POLLOUT:
            self._write(block)

    def _write(self, data: bytes) -> None:
        with self._writing:  # A script may send from several threads.
            self._write_whole(data)

    def _write_whole(self, data: bytes) -> None:
        rest = memoryview(data)
        if self._cut or self.ended == DISCONNECTED:
            return
        try:
            while rest:
                while not self._state(UNREAD / 4):
                    if self.ended is not None and time.monotonic() - self._asked_at > UNREAD:
                        self.check()
                with contextlib.suppress(BlockingIOError):  # The reader's end was set so, and full.
                    rest = rest[os.write(self._descriptor, rest[:_AT_ONCE]) :]
        except OSError:
            # EPIPE, ECONNRESET, EIO of a terminal that is gone: there is no reader any more.
            self.ended = self.ended or DISCONNECTED
        except Ended:
            self._cut = True
            raise

    def _state(self, seconds: float) -> int:
        """Wait until the output can be written or has no reader any more; 0 if neither."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        return dict(poll.poll(seconds * 1000)).get(self._descriptor, 0)

    def end(self, reason: str) -> None:
        """Raise `Ended` if the source is running, and else when it runs next."""
        now = time.monotonic()
        if self.ended is None:
            self.ended = reason
        elif now - self._asked_at < PATIENCE:
            return  # Its ``finally`` blocks are running.
        else:
            self._asked_at = now
            self.check()  # Wherever it is.
        self._asked_at = now
        if self._inside:
            self.check()

    def _on_term(self, _number: int, _frame: FrameType | None) -> None:
        self.end(ENDING)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        self._code = 128 + number
        self._on_term(number, frame)

    def _beats_now(self) -> bool:
        # At the tick that is nearest: one that comes a moment early would else cost a whole tick.
        return self.beat_due() <= self._tick / 2

    def _on_alarm(self, _number: int, _frame: FrameType | None) -> None:
        state = self._state(0)
        if state & _GONE:
            self.end(DISCONNECTED)
        elif time.monotonic() >= self._expires:
            self.end(EXPIRED)
        elif self.ended is not None:
            self.end(self.ended)
        elif self._inside and self._sent == self.given and self._beats_now():
            if state & select.POLLOUT:
                self._beat()
            self.wrote_at = time.monotonic()

    def _beat(self) -> None:
        if self._writing.acquire(blocking=False):  # else a thread is in the middle of a block
            self.leave()  # A signal must not cut the line.
            try:
                self._write_whole(HEARTBEAT)
            finally:
                self._writing.release()
                self.enter()
