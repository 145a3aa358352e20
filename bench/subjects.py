"""The servers that are measured, each started on the server's core with the same 1,000s of clients.

A `Subject` says how to start one of them and what is missing where it cannot be; a `Server` is one
that runs: its port, the processes whose time counts, and how it is told to publish.  A bench asks
for subjects by name and knows no server.  Each application is in ``bench/apps``, and publishes
from inside its own process, because it is the delivery that is measured.
"""

from __future__ import annotations

import http.client
import importlib.util
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlencode

from bench import load
from bench.apps.schedule import Schedule
from bench.processes import (
    ROOT,
    BenchError,
    children,
    find_program,
    free_port,
    listening,
    running,
    until,
)

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


@dataclass(frozen=True)
class Subject:
    """A server to measure.

    ``share``: of the events at saturation that it is given, so that a slow one ends in time.
    """

    name: str
    title: str
    start: Callable[[int], AbstractContextManager[Server]]
    missing: Callable[[], str] = lambda: ""
    share: float = 1.0


def _program_missing(*names: str) -> str:
    missing = [name for name in names if not find_program(name)]
    return f"{', '.join(missing)} not installed" if missing else ""


def _module_missing(*names: str) -> str:
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    return f"{', '.join(missing)} not installed" if missing else ""


@contextmanager
def _serving(
    command: list[str], port: int, core: int, env: Mapping[str, str] = {}
) -> Iterator[subprocess.Popen[str]]:
    """Run a server until the block ends; what it says is shown if it does not come up."""
    with (
        tempfile.NamedTemporaryFile(prefix="ssekit-bench-") as log,
        running(command, core, env=env, log=Path(log.name)) as process,
    ):
        until(lambda: process.poll() is not None or listening(port), 20, f"{command[0]} to listen")
        if process.poll() is not None:
            raise BenchError(f"{' '.join(command)}:\n{Path(log.name).read_text()[-2000:]}")
        yield process


@contextmanager
def loop(core: int) -> Iterator[Server]:
    """The yardstick, ``loop.c``."""
    port = free_port()
    with _serving([load.compiled("loop"), str(port)], port, core) as process:
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
    with _serving(command, port, core, env) as process:
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


def portable(core: int) -> AbstractContextManager[Server]:
    """ssekit without its fan-out: the hub's subscription, iterated."""
    return gunicorn("bench.apps.hub_app:app", core, {"SSEKIT_FANOUT": "off"})


def fanout(
    core: int, history: int = 1000, heartbeat: float = 15.0
) -> AbstractContextManager[Server]:
    """ssekit."""
    env = {"BENCH_HISTORY": str(history), "BENCH_HEARTBEAT": str(heartbeat)}
    return gunicorn("bench.apps.hub_app:app", core, env)


@contextmanager
def sse_starlette(core: int) -> Iterator[Server]:
    """sse-starlette on uvicorn with uvloop and httptools."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--port", str(port), "--backlog", str(BACKLOG)]
    command += ["--loop", "uvloop", "--http", "httptools", "--no-access-log"]
    with _serving([*command, "bench.apps.starlette_app:app"], port, core) as process:
        yield Server(port, process, process.pid, [process.pid])


@contextmanager
def flask_sse(core: int) -> Iterator[Server]:
    """flask-sse in gunicorn's gevent worker, with a redis of its own on the same core."""
    port = free_port()
    program = find_program("redis-server") or "redis-server"
    with tempfile.TemporaryDirectory(prefix="ssekit-bench-") as folder:
        command = [program, "--bind", "127.0.0.1", "--port", str(port), "--dir", folder]
        command += ["--save", "", "--appendonly", "no"]
        url = f"redis://127.0.0.1:{port}"
        with (
            _serving(command, port, core) as redis,
            gunicorn("bench.apps.flask_sse_app:app", core, {"REDIS_URL": url}) as server,
        ):
            server.pids.append(redis.pid)
            # It sends no head before the first event, so a stream is open when redis has it.
            server.flags = "s"
            server.settled = lambda clients: _redis_subscribers(port) >= clients
            yield server


def _redis_subscribers(port: int) -> int:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"PUBSUB NUMSUB sse\r\n")
        return int(connection.recv(100).split(b":")[-1])


@contextmanager
def better_sse(core: int) -> Iterator[Server]:
    """better-sse on node."""
    port = free_port()
    command = [find_program("node") or "node", "bench/apps/better_sse_app.mjs", str(port)]
    with _serving(command, port, core) as process:
        yield Server(port, process, process.pid, [process.pid])


def _better_sse_missing() -> str:
    if not (ROOT / "bench/peers/node_modules/better-sse").is_dir():
        return "better-sse not installed (npm install --prefix bench/peers)"
    return _program_missing("node")


_NCHAN_MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
_NCHAN = """
load_module {module};
daemon off;
{user}
worker_processes 1;
worker_rlimit_nofile {files};
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections {files}; }}
http {{
    access_log off;
    client_body_temp_path {folder};
    proxy_temp_path {folder};
    fastcgi_temp_path {folder};
    uwsgi_temp_path {folder};
    scgi_temp_path {folder};
    keepalive_requests 1000000;
    server {{
        listen 127.0.0.1:{port} backlog={backlog};
        location = /events {{ nchan_subscriber eventsource; nchan_channel_id bench; }}
        location = /pub {{ nchan_publisher; nchan_channel_id bench; }}
    }}
}}
"""


class NchanServer(Server):
    """Nchan, to which one publishes over HTTP and not otherwise."""

    def publish(self, **schedule: object) -> None:
        thread = threading.Thread(
            target=self._publish, args=[Schedule(urlencode(schedule))], daemon=True
        )
        thread.start()

    def _publish(self, schedule: Schedule) -> None:
        with (
            suppress(OSError),
            socket.create_connection(("127.0.0.1", self.port), timeout=600) as connection,
        ):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            answers = connection.makefile("rb")
            for wait, sequences in schedule.turns():
                threading.Event().wait(wait)
                requests = b"".join(self._post(schedule.data(sequence)) for sequence in sequences)
                connection.sendall(requests)
                for _ in sequences:
                    _skip_answer(answers)

    @staticmethod
    def _post(data: str) -> bytes:
        head = f"POST /pub HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(data)}\r\n"
        return f"{head}Content-Type: text/plain\r\n\r\n{data}".encode()


def _skip_answer(answers: BinaryIO) -> None:
    size = 0
    while (line := answers.readline()) not in (b"\r\n", b""):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            size = int(value)
    answers.read(size)


@contextmanager
def nchan(core: int) -> Iterator[Server]:
    """Nchan in nginx, one worker process."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="ssekit-bench-") as folder:
        file = Path(folder, "nginx.conf")
        user = "user root;" if os.geteuid() == 0 else ""
        text = _NCHAN.format(
            module=_NCHAN_MODULE,
            user=user,
            files=CLIENTS,
            folder=folder,
            port=port,
            backlog=BACKLOG,
        )
        file.write_text(text)
        command = [find_program("nginx") or "nginx", "-e", "stderr", "-p", folder, "-c", str(file)]
        with _serving(command, port, core) as process:
            [worker] = until(lambda: children(process.pid), 5, "nginx's worker")
            yield NchanServer(port, process, worker, [process.pid, worker])


def _nchan_missing() -> str:
    if not _NCHAN_MODULE.exists():
        return "libnginx-mod-nchan not installed"
    return _program_missing("nginx")


LOOP = "C loop"
FANOUT = "ssekit"
PORTABLE = "ssekit (portable)"
QUEUE = "generator and queue"

OURS = [
    Subject(QUEUE, "a generator and a gevent Queue for each client", queue_app, share=0.2),
    Subject(PORTABLE, "ssekit without its fan-out", portable, share=0.2),
    Subject(FANOUT, "ssekit", fanout),
]
PEERS = [
    Subject("Nchan", "Nchan in nginx", nchan, _nchan_missing, share=0.5),
    Subject("better-sse", "better-sse on node", better_sse, _better_sse_missing, share=0.2),
    Subject(
        "sse-starlette",
        "sse-starlette on uvicorn (uvloop)",
        sse_starlette,
        lambda: _module_missing("sse_starlette", "uvicorn", "uvloop", "httptools"),
        share=0.1,
    ),
    Subject(
        "flask-sse",
        "flask-sse with redis, in gunicorn gevent",
        flask_sse,
        lambda: _module_missing("flask_sse", "redis") or _program_missing("redis-server"),
        share=0.1,
    ),
]
YARDSTICK = Subject(LOOP, "a C program that only calls send()", loop)
EVERY = [YARDSTICK, *OURS, *PEERS]
