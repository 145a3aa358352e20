"""What a grant costs: 2,000 streams opened with a ticket, beside 2,000 open to everybody.

Then a delivery to them; the end of 5,000 streams of one person on four workers; 10,000 streams
whose grants expire at different times; and presence: 10,000 members in one channel, and one in each
of 10,000, in one process, as another one sees them.
"""

from __future__ import annotations

import select
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.load import clients
from bench.measuring import Schedule, deliver
from bench.processes import BenchError, processor_seconds, until
from bench.results import Results
from bench.servers import BACKLOG, CLIENTS, gunicorn, serving
from bench.settings import Settings
from ssekit import Hub
from ssekit.access import Tickets
from ssekit.hub import lease
from ssekit.hub.grant import Member
from ssekit.hub.presence import members_channel
from tests.ports import free_port

NAME = "access"
STREAMS = 2_000
VIEWERS = 5_000
EXPIRING = 10_000
MEMBERS = 10_000
SECRET = "a secret of this bench alone, of 32 bytes"
WATCHED = 2 * lease.BEAT
"""Seconds for which the writes of members that stay are counted."""


def run(settings: Settings, results: Results) -> None:
    """Open streams with a ticket and without, in turn which comes first; then count members."""
    results.title(NAME, "streams for everybody and with a ticket, and members")
    number = settings.scaled(STREAMS, 100)
    for turn in range(settings.rounds):
        ways = {"everybody": "/events", "ticket": _path_with_ticket()}
        costs = {}
        for name in list(ways) if turn % 2 else reversed(ways):
            costs[name] = _opened_and_delivered(settings, ways[name], number)
            results.put(NAME, name, costs[name])
        ratio = {
            column: costs["ticket"][column] / costs["everybody"][column]
            for column in costs["ticket"]
        }
        results.put(NAME, "ticket x everybody", ratio)
    _end(settings, results)
    _expire(settings, results)
    for title, channels in (("in one channel", 1), ("in a channel each", 0)):
        members = settings.scaled(MEMBERS, 100)
        _count_members(results, f"members {title}", members, channels or members)
    connect = results.median(NAME, "ticket x everybody", "connect: µs")
    results.at_most(NAME, "processor time of a connect with a ticket, times without", connect, 1.5)
    delivery = results.median(NAME, "ticket x everybody", "delivery: µs")
    results.at_most(NAME, "processor time of a delivery, times without a grant", delivery, 1.1)


def _path_with_ticket() -> str:
    return f"/granted?ticket={Tickets(SECRET).issue('bench', subject='7', session='s')}"


def _opened_and_delivered(settings: Settings, path: str, number: int) -> dict[str, float | Any]:
    env = {"BENCH_SECRET": SECRET}
    with (
        clients(settings.cores[1]) as load,
        gunicorn("bench.apps.access_app:app", settings.cores[0], env) as server,
    ):
        load.open(100, server.port, path)
        before = processor_seconds(server.pids)
        load.open(number, server.port, path)
        connect = (processor_seconds(server.pids) - before) / number * 1e6
        delivered = deliver(server, load, Schedule(50))
        if delivered.missing:
            raise BenchError(f"{delivered.missing} deliveries are missing")
        return {"connect: µs": connect, "delivery: µs": delivered.processor}


def _end(settings: Settings, results: Results) -> None:
    """End the streams of one person on four workers, and see how soon each has ended."""
    viewers = settings.scaled(VIEWERS, 100)
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="ssekit-bench-") as folder, ExitStack() as stack:
        url = f"sqlite:///{folder}/hub.db"
        command = [sys.executable, "-m", "gunicorn", "--config", "/dev/null", "-k", "gevent"]
        command += ["--workers", "4", "--bind", f"127.0.0.1:{port}", "--backlog", str(BACKLOG)]
        command += ["--worker-connections", str(CLIENTS), "bench.apps.access_app:app"]
        env = {"BENCH_SECRET": SECRET, "BENCH_HUB": url}
        stack.enter_context(serving(command, port, settings.cores[0], env))
        hub = stack.enter_context(Hub(url))
        request = f"GET {_path_with_ticket()} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        sockets = _opened(stack, port, [request] * viewers)
        began = time.monotonic()
        hub.disconnect(subject="7")
        took = sorted(ended - began for _, ended in _ends(sockets))
        p99 = took[int(len(took) * 0.99)] * 1e3
        row = "disconnect, four workers"
        columns: dict[str, float | None] = {"ended p50: ms": took[len(took) // 2] * 1e3}
        results.put(NAME, row, {**columns, "ended p99: ms": p99, "ended max: ms": took[-1] * 1e3})
        results.at_most(NAME, f"ms until {viewers:,} streams have ended, p99", p99, 1000)


def _expire(settings: Settings, results: Results) -> None:
    """Open streams whose grants expire within ten seconds, and see how late each one ends."""
    viewers = settings.scaled(EXPIRING, 100)
    env = {"BENCH_SECRET": SECRET}
    with ExitStack() as stack:
        server = stack.enter_context(gunicorn("bench.apps.access_app:app", settings.cores[0], env))
        first = time.time() + 5 + viewers / 250  # when all are open
        times = [first + 10 * number / viewers for number in range(viewers)]
        requests = [
            f"GET /expiring?at={at} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode() for at in times
        ]
        sockets = _opened(stack, server.port, requests)
        if time.time() > first:
            raise BenchError("grants expired before all streams were open")
        clock = time.time() - time.monotonic()
        expires = dict(zip(sockets, times, strict=True))
        before = processor_seconds(server.pids)
        late = sorted(ended + clock - expires[one] for one, ended in _ends(sockets))
        used = (processor_seconds(server.pids) - before) / viewers * 1e6
    if late[0] < 0:
        raise BenchError("a stream ended before its grant had expired")
    columns: dict[str, float | None] = {
        "ended p50: ms": late[len(late) // 2] * 1e3,
        "ended p99: ms": late[int(len(late) * 0.99)] * 1e3,
        "ended max: ms": late[-1] * 1e3,
        "end: µs": used,
    }
    results.put(NAME, "grants that expire", columns)
    text = f"ms after its grant had expired, until the last of {viewers:,} streams ended"
    results.at_most(NAME, text, late[-1] * 1e3, 1000)


def _opened(stack: ExitStack, port: int, requests: list[bytes]) -> list[socket.socket]:
    """Send each request on a connection of its own, and wait until all streams are open."""
    sockets = []
    for request in requests:
        one = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
        one.sendall(request)
        sockets.append(one)
    for one in sockets:
        received = b""
        while b"stream-open" not in received:
            received += one.recv(4096)
    return sockets


def _ends(sockets: list[socket.socket]) -> Iterator[tuple[socket.socket, float]]:
    """Yield each stream with the time, by the monotonic clock, when its last chunk has come."""
    poll = select.epoll()
    waiting = {one.fileno(): one for one in sockets}
    for descriptor in waiting:
        poll.register(descriptor, select.EPOLLIN)
    while waiting:
        found = poll.poll(60)
        if not found:
            raise BenchError(f"{len(waiting)} streams have not ended")
        for descriptor, _ in found:
            data = waiting[descriptor].recv(4096)
            if not data or data.endswith(b"0\r\n\r\n"):
                poll.unregister(descriptor)
                yield waiting.pop(descriptor), time.monotonic()
    poll.close()


def _count_members(results: Results, row: str, members: int, channels: int) -> None:
    with tempfile.TemporaryDirectory(prefix="ssekit-bench-") as folder:
        url = f"sqlite:///{folder}/hub.db"
        with Hub(url) as hub, Hub(url) as other:
            writes = _counted(hub)
            before = _size(folder)
            presence = hub._opened.presence()
            began = time.monotonic()
            for number in range(members):
                member = Member(str(number), {"name": f"member {number}"})
                presence.enter([f"room {number % channels}"], member)
            entered = time.monotonic() - began
            last = {f"room {number}" for number in range(channels)}
            until(lambda: _known(other, last) == members, 300, "the members to be known")
            known = time.monotonic() - began
            joined, grown = writes.total(), _size(folder) - before
            writes.clear()
            time.sleep(WATCHED)
            columns: dict[str, float | None] = {
                "counted: ms": entered * 1e3,
                "known after: s": known,
                "writes to join": joined,
                "writes/s to stay": writes.total() / WATCHED,
                "bytes each in the log": grown / members,
            }
            results.put(NAME, row, columns)


def _known(hub: Hub, channels: set[str]) -> int:
    names = [members_channel(channel) for channel in channels]
    return len(hub._broker.opening(names, 0).state)


def _counted(hub: Hub) -> Counter[str]:
    """Count a hub's writes to its log from now on."""
    writes: Counter[str] = Counter()

    def counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def write(*arguments: Any, **options: Any) -> Any:
            writes[name] += 1
            return call(*arguments, **options)

        return write

    for name in ("join", "leave", "beat", "append", "remove", "end_lease"):
        setattr(hub._broker, name, counted(name, getattr(hub._broker, name)))
    return writes


def _size(folder: str) -> int:
    return sum(file.stat().st_size for file in Path(folder).iterdir())
