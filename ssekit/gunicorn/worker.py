"""gunicorn's gevent worker, which leaves a connection to the others while it has more than they.

All workers wait for connections on one listening socket, and the one that wakes first takes the
connection: nearly always the same one.  For short requests that does not matter; streams stay where
they land.  So a worker with more than its share pauses for a moment before it accepts, in which one
with less takes the connection.  If none has, because all are busy, it goes on.  The socket stays
the server's own, unlike with ``reuse_port``, so that a reload resets no connection in its queue.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import gevent
from gevent.server import StreamServer
from gunicorn.workers.ggevent import GeventWorker

from ssekit.gunicorn.loads import Load
from ssekit.gunicorn.signals import exit_on_signals
from ssekit.stream.admission import taken_over_streams

SHARE = 1.05
"""Times the mean of all workers that one may have before it pauses, and one connection more."""
PAUSE, LONGEST_PAUSE = 0.1, 0.05
"""Seconds that the others have to take a connection: at twice the mean, and at most."""
AT_ONCE = 8
"""Connections that are accepted in one turn of the event loop, and after each pause."""


class Worker(GeventWorker):  # type: ignore[misc]
    """``worker_class = "ssekit.gunicorn.worker.Worker"``."""

    def __init__(self, age: int, *args: Any, **options: Any) -> None:
        super().__init__(age, *args, **options)
        self.load = Load(age)
        self._pools: list[Any] = []
        self._has_run = self._quits = False

    def init_process(self) -> None:
        """Begin to work; gunicorn calls it once, in the worker's process."""
        exit_on_signals()
        super().init_process()

    def run(self) -> None:
        """Serve until the worker has to end."""
        try:
            super().run()
        finally:
            self._has_run = True

    def handle_quit(self, number: int, frame: Any) -> None:
        """Exit at once.  Ctrl-C comes twice: from the terminal, and as SIGQUIT from the master."""
        if not self._quits:
            self._quits = True
            gevent.spawn(self._quit, number, frame)

    def _quit(self, number: int, frame: Any) -> None:
        try:
            # It sleeps before it exits, and `run` may have returned by then: gevent would print
            # this exit as the failure of a greenlet.
            super(GeventWorker, self).handle_quit(number, frame)
        except SystemExit:
            if not self._has_run:
                raise

    def server_class(self, listener: Any, *, spawn: Any, **options: Any) -> StreamServer:
        """Make the server of one listening socket; gunicorn gives what its own ones take."""
        self._pools.append(spawn)
        tls = {"ssl_context": options["ssl_context"]} if "ssl_context" in options else {}
        handle = partial(self.handle, listener)
        return _Server(self, listener, handle=handle, spawn=spawn, **tls)

    def connections(self) -> int:
        """Count what is open: what has a greenlet, and the streams that have none any more."""
        return sum(map(len, self._pools)) + taken_over_streams()

    def notify(self) -> None:
        super().notify()
        if self.alive:
            self.load.write(self.connections())


class _Server(StreamServer):  # type: ignore[misc]
    max_accept = AT_ONCE

    def __init__(self, worker: Worker, *args: Any, **options: Any) -> None:
        self._worker = worker
        self._resuming = False
        self._pause: Any = None
        super().__init__(*args, **options)

    def do_read(self) -> Any:
        """Accept a connection; return None to accept no further one in this turn."""
        load = self._worker.load
        mine = self._worker.connections()
        load.write(mine)
        mean = load.mean()
        if not self._resuming and mine > mean * SHARE + 1:
            self.stop_accepting()
            ahead = (mine - mean) / max(mean, 1.0)
            self._pause = self.loop.timer(min(PAUSE * ahead, LONGEST_PAUSE))
            self._pause.start(self._resume)
            return None
        return super().do_read()

    def _resume(self) -> None:
        self._pause.close()
        if self.started:
            self.start_accepting()
            self._resuming = True  # What is still in the queue, the others are too busy to take.
            try:
                self._do_read()
            finally:
                self._resuming = False

    def close(self) -> None:
        if self._pause is not None:
            self._pause.close()
        self._worker.load.close()
        super().close()
