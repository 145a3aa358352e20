"""Servers that run: the C loop, gunicorn with an application of the bench, and what they share.

A `Server` is its port, the processes whose time counts, and how it is told to publish; a bench
knows no more of it.  Each application is in ``bench/apps``, and publishes from inside its own
process, because it is the delivery that is measured.  What is measured beside ssekit, and what is
needed for it, is in `bench.subjects`.
"""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

from bench import load
from bench.processes import BenchError, children, running, until
from tests.ports import answers, free_port

BACKLOG = 4096
CLIENTS = 20_000  # more than any bench opens


@dataclass
class Server:
    """A subject that runs.

    ``pids``: the processes whose processor time is the cost of delivering.
    ``worker``: the process that holds the clients, whose memory and descriptors count.
    ``flags``: how the load has to open streams here (see ``load.c``).
    """

    port: int
    process: subprocess.Popen[str]
    worker: int
    pids: list[int]
    path: str = "/events"
    flags: str = "-"
    settled: Callable[[int], bool] = field(default=lambda clients: True)

    def publish(self, **schedule: object) -> None:
        """Start a schedule; the server answers at its end, to nobody."""
        request = f"GET /publish?{urlencode(schedule)} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        threading.Thread(target=self._ask, args=[request.encode()], daemon=True).start()

    def _ask(self, request: bytes) -> None:
        # What a server that fails does not deliver is counted at the clients.
        with (
            suppress(OSError),
            socket.create_connection(("127.0.0.1", self.port), timeout=600) as connection,
        ):
            connection.sendall(request)
            connection.recv(1)


@contextmanager
def serving(
    command: list[str], port: int, core: int, env: Mapping[str, str] = {}
) -> Iterator[subprocess.Popen[str]]:
    """Run a server until the block ends; what it says is shown if it does not come up."""
    with (
        tempfile.NamedTemporaryFile(prefix="ssekit-bench-") as log,
        running(command, core, env=env, log=Path(log.name)) as process,
    ):
        until(lambda: process.poll() is not None or answers(port), 20, f"{command[0]} to listen")
        if process.poll() is not None:
            raise BenchError(f"{' '.join(command)}:\n{Path(log.name).read_text()[-2000:]}")
        yield process


@contextmanager
def loop(core: int) -> Iterator[Server]:
    """The yardstick, ``loop.c``."""
    port = free_port()
    with serving([load.compiled("loop"), str(port)], port, core) as process:
        yield Server(port, process, process.pid, [process.pid])


@contextmanager
def gunicorn(
    target: str, core: int, env: Mapping[str, str] = {}, *options: str
) -> Iterator[Server]:
    """An application in one gevent worker of gunicorn."""
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--config", "/dev/null", "-k", "gevent"]
    command += ["--bind", f"127.0.0.1:{port}", "--backlog", str(BACKLOG)]
    command += ["--worker-connections", str(CLIENTS), *options, target]
    with serving(command, port, core, env) as process:
        until(lambda: _answers(port), 20, "gunicorn's worker")
        [worker] = children(process.pid)
        yield Server(port, process, worker, [process.pid, worker])


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/ready")
        return bool(connection.getresponse().status)
    finally:
        connection.close()


def queue_app(core: int) -> AbstractContextManager[Server]:
    """A generator and a queue for each client."""
    return gunicorn("bench.apps.queue_app:app", core)


def sending(way: str) -> Callable[[int], AbstractContextManager[Server]]:
    """Return what starts ssekit with a value of ``SSEKIT_FANOUT``."""
    return lambda core: gunicorn("bench.apps.hub_app:app", core, {"SSEKIT_FANOUT": way})


portable = sending("off")
"""ssekit without its fan-out: the hub's subscription, iterated."""


def counted(core: int) -> AbstractContextManager[Server]:
    """ssekit with metrics of the channel, scraped; its counting can be switched."""
    return gunicorn("bench.apps.counted_app:app", core)


def fanout(
    core: int, history: int = 1000, heartbeat: float = 15.0
) -> AbstractContextManager[Server]:
    """ssekit."""
    env = {"BENCH_HISTORY": str(history), "BENCH_HEARTBEAT": str(heartbeat)}
    return gunicorn("bench.apps.hub_app:app", core, env)
