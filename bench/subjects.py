"""Who is measured: the C loop, ssekit, what one writes without it, and other toolkits.

A `Subject` says how to start a server, and what is missing where it cannot be.  A bench asks for
subjects by name and knows no server.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlencode

from bench.apps.schedule import Schedule
from bench.processes import ROOT, children, find_program, until
from bench.servers import (
    BACKLOG,
    CLIENTS,
    Server,
    fanout,
    gunicorn,
    loop,
    portable,
    queue_app,
    sending,
    serving,
)
from tests.ports import free_port


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
def sse_starlette(core: int) -> Iterator[Server]:
    """sse-starlette on uvicorn with uvloop and httptools."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--port", str(port), "--backlog", str(BACKLOG)]
    command += ["--loop", "uvloop", "--http", "httptools", "--no-access-log"]
    with serving([*command, "bench.apps.starlette_app:app"], port, core) as process:
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
            serving(command, port, core) as redis,
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
    with node_server("bench/apps/better_sse_app.mjs", core) as server:
        yield server


@contextmanager
def node_server(script: str, core: int) -> Iterator[Server]:
    """A program for node that listens on the port that it is given."""
    port = free_port()
    command = [find_program("node") or "node", script, str(port)]
    with serving(command, port, core) as process:
        yield Server(port, process, process.pid, [process.pid])


def workerman_missing() -> str:
    """Return what keeps Workerman from being measured."""
    if not (ROOT / "bench/peers/vendor/workerman").is_dir():
        return "Workerman not installed (composer require -d bench/peers workerman/workerman)"
    return _program_missing("php")


def better_sse_missing() -> str:
    """Return what keeps better-sse from being measured."""
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
        with serving(command, port, core) as process:
            [worker] = until(lambda: children(process.pid), 5, "nginx's worker")
            yield NchanServer(port, process, worker, [process.pid, worker])


def _nchan_missing() -> str:
    if not _NCHAN_MODULE.exists():
        return "libnginx-mod-nchan not installed"
    return _program_missing("nginx")


LOOP = "C loop"
FANOUT = "ssekit"
AIO = "ssekit (aio)"
WRITING = "ssekit (writes)"
PORTABLE = "ssekit (portable)"
QUEUE = "generator and queue"

WAYS = [
    Subject(WRITING, "ssekit with a system call for each delivery", sending("writes")),
    Subject(AIO, "ssekit without io_uring, with Linux AIO", sending("aio")),
    Subject(FANOUT, "ssekit", fanout),
]
OURS = [
    Subject(QUEUE, "a generator and a gevent Queue for each client", queue_app, share=0.2),
    Subject(PORTABLE, "ssekit without its fan-out", portable, share=0.2),
    *WAYS,
]
PEERS = [
    Subject("Nchan", "Nchan in nginx", nchan, _nchan_missing, share=0.5),
    Subject("better-sse", "better-sse on node", better_sse, better_sse_missing, share=0.2),
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
