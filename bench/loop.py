"""A loop, or a timer, for each client: what one of its events and one of its streams cost.

This is the program that most people write first.  900 clients get 20 events a second each, from a
generator with ``time.sleep`` that uses no toolkit (the yardstick), from ssekit's ways, and from a
timer for each session in other toolkits.  A ratio is taken within one round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from bench.load import clients
from bench.measuring import open_streams
from bench.processes import (
    BenchError,
    children,
    find_program,
    processor_seconds,
    proportional_set_size,
    until,
)
from bench.results import Results
from bench.servers import Server, gunicorn, serving
from bench.settings import Settings
from bench.subjects import better_sse_missing, node_server, workerman_missing
from tests.ports import free_port

NAME = "loop"
CLIENTS = 900
FIRST = 20
SECONDS = 4.0
BY_HAND = "generator by hand, time.sleep"


@dataclass(frozen=True)
class Row:
    """A way to serve a loop, and what its figures have to be, times the yardstick's."""

    name: str
    start: Callable[[int], AbstractContextManager[Server]]
    time: float | None = None
    memory: float | None = None
    missing: Callable[[], str] = lambda: ""


def _ours(path: str) -> Callable[[int], AbstractContextManager[Server]]:
    @contextmanager
    def start(core: int) -> Iterator[Server]:
        with gunicorn("bench.apps.loop_app:app", core) as server:
            server.path = path
            yield server

    return start


@contextmanager
def _workerman(core: int) -> Iterator[Server]:
    port = free_port()
    command = [find_program("php") or "php", "bench/apps/workerman_loop.php", "start"]
    with serving(command, port, core, {"BENCH_PORT": str(port)}) as process:
        # Its master forks the process that serves.
        worker = until(lambda: children(process.pid), 10, "Workerman's worker")[0]
        yield Server(port, process, worker, [process.pid, worker])


ROWS = [
    Row(BY_HAND, _ours("/by-hand")),
    Row("ssekit: generator, every", _ours("/ticking"), 1.0, 0.75),
    Row("ssekit: generator, time.sleep", _ours("/sleeping"), 1.0, 0.75),
    Row("ssekit: script of a Folder", _ours("/loop.py"), 1.0, 0.75),
    Row("ssekit: @Stream.every", _ours("/tick"), 0.6, None),
    Row(
        "better-sse, a timer each",
        lambda core: node_server("bench/apps/better_sse_loop.mjs", core),
        missing=better_sse_missing,
    ),
    Row("Workerman, a timer each", _workerman, missing=workerman_missing),
]


def run(settings: Settings, results: Results) -> None:
    """Measure all rows in interleaved rounds."""
    count = settings.scaled(CLIENTS, 50)
    results.title(NAME, f"{count:,} clients with a loop each, 20 events a second")
    for _ in range(settings.rounds):
        yardstick: dict[str, float] = {}
        for row in ROWS:
            if why := row.missing():
                results.note(NAME, f"{row.name}: {why}")
                continue
            figures = _measure(settings, row, count)
            yardstick = yardstick or figures
            ratios = {f"{name}, times": figures[name] / yardstick[name] for name in figures}
            results.put(NAME, row.name, {**figures, **ratios})
    for row in ROWS:
        for column, limit in (("µs an event", row.time), ("KB a stream", row.memory)):
            if limit is not None:
                value = results.median(NAME, row.name, f"{column}, times")
                results.at_most(NAME, f"{row.name}: {column}, times by hand", value, limit)


def _measure(settings: Settings, row: Row, count: int) -> dict[str, float]:
    with clients(settings.cores[1]) as load, row.start(settings.cores[0]) as server:
        open_streams(server, load, FIRST)
        time.sleep(0.5)
        before = proportional_set_size(server.worker)
        open_streams(server, load, count, group=1)
        time.sleep(0.5)
        weight = proportional_set_size(server.worker) - before
        load.reset()
        used = processor_seconds(server.pids)
        time.sleep(SECONDS)
        used = processor_seconds(server.pids) - used
        report = load.ask("report")
    events = sum(group["deliveries"] for group in report.values())
    expected = (count + FIRST) * 20 * SECONDS
    if events < expected / 4:  # Where the machine is busy, they come late.
        raise BenchError(f"{row.name}: {events} events of {expected:.0f} came")
    return {"µs an event": used / events * 1e6, "KB a stream": weight / 1024 / count}
