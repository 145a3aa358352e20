"""What readers who read slowly cost the server's memory: they are to share what they wait for.

All have a small window and take a few kilobytes now and then, at random, while a backlog is
published, and small events after it.  Ten of them tell what the events themselves take; what the
others add is theirs.
"""

from __future__ import annotations

import random
import socket
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict

from bench.measuring import Schedule
from bench.processes import BenchError, proportional_set_size
from bench.results import Results
from bench.servers import Server, fanout
from bench.settings import Settings

NAME = "slowly"
FEW = 10
WINDOW = 4096
"""Bytes that a reader's host takes by itself."""
SECONDS = 25
PAUSE = 0.05
"""Seconds between two turns, in each of which a quarter of the readers read."""
AFTER = Schedule(400, rate=20)
"""Events that are published while the backlog is read."""


def run(settings: Settings, results: Results) -> None:
    """Let readers read a backlog of small events slowly, and one of large ones."""
    results.title(NAME, "readers that read slowly while events go on")
    readers = settings.scaled(2000, 2 * FEW)
    small = Schedule(1500, rate=500, size=1024)
    few = _grows(settings, FEW, small, 4 * 1024)
    many = _grows(settings, readers, small, 4 * 1024)
    each = (many - few) / 1024 / (readers - FEW)
    name = f"{readers:,} readers, 1.5 MB of small events"
    results.put(NAME, name, {"worker grew, MB": many / 1024**2, "KB each": each})
    results.at_most(NAME, f"{name}: KB each beside what the few take", each, 3)

    readers = settings.scaled(500, 2 * FEW)
    grew = _grows(settings, readers, Schedule(10, rate=5, size=1024**2 - 1024), 64 * 1024)
    name = f"{readers:,} readers, ten events of 1 MB"
    results.put(NAME, name, {"worker grew, MB": grew / 1024**2})
    results.at_most(NAME, f"{name}: MB that the worker grows by", grew / 1024**2, 30)


def _grows(settings: Settings, readers: int, backlog: Schedule, most: int) -> int:
    """Return by how many bytes the worker grows at most while so many readers read slowly."""
    with fanout(settings.cores[0], history=4000) as server, ExitStack() as stack:
        sockets = [stack.enter_context(_reader(server)) for _ in range(readers)]
        server.publish(**asdict(Schedule(1)))
        for each in sockets:
            _read_until(each, b"@1,")  # What is made once is made before.
            each.setblocking(False)
        before = worst = proportional_set_size(server.worker)
        server.publish(**asdict(backlog))
        server.publish(**{**asdict(AFTER), "first": backlog.count + 1})
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            for each in random.sample(sockets, readers // 4):
                with suppress(BlockingIOError):
                    each.recv(most)
            worst = max(worst, proportional_set_size(server.worker))
            time.sleep(PAUSE)
    return worst - before


def _reader(server: Server) -> socket.socket:
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW)
    reader.settimeout(30)
    reader.connect(("127.0.0.1", server.port))
    reader.sendall(b"GET %b HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % server.path.encode())
    _read_until(reader, b"stream-open")
    return reader


def _read_until(reader: socket.socket, wanted: bytes) -> None:
    found = b""
    while wanted not in found:
        some = reader.recv(WINDOW)
        if not some:
            raise BenchError("a stream ended")
        found += some
