"""How evenly four workers share the streams: the fullest one's, times the mean.

With the settings that ssekit brings (``python:ssekit.gunicorn``), beside gunicorn's own worker.
"""

from __future__ import annotations

import http.client
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.processes import BenchError, children, until
from bench.results import Results
from bench.servers import serving
from bench.settings import Settings
from tests.ports import free_port
from tests.viewers import Viewers

NAME = "balance"
WORKERS = 4
SLOW, EVERY = 400, 0.02
FAST = 2000
OURS = "ssekit.gunicorn"
KINDS = {OURS: ["--config", "python:ssekit.gunicorn"], "-k gevent": ["-k", "gevent"]}


def run(settings: Settings, results: Results) -> None:
    """Open streams slowly, all at once, after a worker was killed, and after a reload."""
    slow, fast = settings.scaled(SLOW, 200), settings.scaled(FAST, 400)
    results.title(NAME, f"the fullest of {WORKERS} workers, times the mean")
    for _ in range(settings.rounds):
        for name, options in KINDS.items():
            with _serving(options, settings) as (port, master):
                columns: dict[str, float | None] = {}
                for column, count, every in (("slow", slow, EVERY), ("fast", fast, 0.0)):
                    with Viewers(port, "/hub") as viewers:
                        viewers.open(count, every)
                        columns[column] = viewers.fullest(WORKERS)
                with Viewers(port, "/hub") as viewers:
                    viewers.open(slow, EVERY / 2)
                    columns["after a kill"] = _after(viewers, port, master, kill=True)
                    columns["after a reload"] = _after(viewers, port, master, kill=False)
                    columns["resets"] = float(viewers.resets)
            results.put(NAME, name, columns)
    for column in ("slow", "fast", "after a kill", "after a reload"):
        value = results.median(NAME, OURS, column)
        results.at_most(NAME, f"{column}: the fullest worker, times the mean", value, 1.3)


def _after(viewers: Viewers, port: int, master: int, *, kill: bool) -> float:
    """Replace a worker, or all, and have the clients that were theirs come back."""
    before = set(children(master))
    if kill:
        os.kill(max(viewers.counts, key=viewers.counts.__getitem__), signal.SIGKILL)
    else:
        os.kill(master, signal.SIGHUP)
    expected = 1 if kill else WORKERS
    until(lambda: len(set(children(master)) - before) >= expected, 30, "the new workers")
    gone = 1 if kill else WORKERS
    until(lambda: len(before - set(children(master))) >= gone, 40, "the old workers to go")
    _all_answer(port, master)
    viewers.open(viewers.forget_ended(), 0.002)
    return viewers.fullest(WORKERS)


@contextmanager
def _serving(options: list[str], settings: Settings) -> Iterator[tuple[int, int]]:
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", *options, "--workers", str(WORKERS)]
    command += ["--worker-connections", "10000", "--bind", f"127.0.0.1:{port}"]
    with serving([*command, "tests.apps.balanced:app"], port, settings.cores[0]) as process:
        until(lambda: len(children(process.pid)) == WORKERS, 20, "gunicorn's workers")
        _all_answer(port, process.pid)
        yield port, process.pid


def _all_answer(port: int, master: int) -> None:
    """Wait until each worker has answered, or the busiest have often enough."""
    answered: set[str] = set()
    deadline = time.monotonic() + 10
    while {str(pid) for pid in children(master)} - answered:
        if time.monotonic() > deadline:
            if not answered:
                raise BenchError("no worker answers")
            break  # gunicorn's own workers leave requests to the one that wakes first.
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/")
        answered.add(connection.getresponse().headers.get("X-Process", ""))
        connection.close()
