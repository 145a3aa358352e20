"""ssekit where no connection can be taken over, beside a generator with a queue for each client.

Both run in gunicorn's gevent worker.  The portable way comes twice: with the fan-out switched off,
and with the fan-out on, inside middleware that wraps the iterable.  The queue is what one writes
by hand, so the ratio is the price of what ssekit promises beyond it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from bench.fanout import check
from bench.load import clients
from bench.measuring import Schedule, deliver, open_streams
from bench.processes import proportional_set_size
from bench.results import Results
from bench.servers import Server, gunicorn, portable, queue_app
from bench.settings import Settings
from bench.subjects import PORTABLE, QUEUE

NAME = "iterated"
WRAPPED = "ssekit (wrapped)"
SUBSCRIBERS = 1000
FIRST = 20
RATE = 10


def wrapped(core: int) -> AbstractContextManager[Server]:
    """ssekit inside middleware that passes every block on."""
    return gunicorn("bench.apps.wrapped_app:app", core)


WAYS: dict[str, Callable[[int], AbstractContextManager[Server]]] = {
    QUEUE: queue_app,
    PORTABLE: portable,
    WRAPPED: wrapped,
}


def run(settings: Settings, results: Results) -> None:
    """Measure the three in interleaved rounds."""
    subscribers = settings.scaled(SUBSCRIBERS, 10)
    results.title(NAME, f"{subscribers:,} subscribers, each with a greenlet; µs of processor time")
    for _ in range(settings.rounds):
        for row, start in WAYS.items():
            columns = _measure(settings, results, row, start, subscribers)
            results.put(NAME, row, dict(columns))
    for column in ("saturation: µs", f"{RATE} a second: µs", "bursts of ten: µs", "KB each"):
        queue = results.median(NAME, QUEUE, column)
        for row in (PORTABLE, WRAPPED):
            ours = results.median(NAME, row, column)
            if ours and queue:
                results.at_most(NAME, f"{row}, {column}, times the queue's", ours / queue, 1.5)


def _measure(
    settings: Settings,
    results: Results,
    row: str,
    start: Callable[[int], AbstractContextManager[Server]],
    subscribers: int,
) -> dict[str, float]:
    schedules = {
        "saturation": Schedule(settings.scaled(60, 5)),
        f"{RATE} a second": Schedule(settings.scaled(60, 5), rate=RATE),
        "bursts of ten": Schedule(settings.scaled(20, 2) * 10, burst=10),
    }
    with clients(settings.cores[1]) as load, start(settings.cores[0]) as server:
        open_streams(server, load, FIRST)
        deliver(server, load, Schedule(3))  # What is made at the first event is made now.
        before = proportional_set_size(server.worker)
        open_streams(server, load, subscribers, group=1)
        weight = proportional_set_size(server.worker) - before
        columns = {"KB each": weight / 1024 / subscribers}
        for name, schedule in schedules.items():
            measure = deliver(server, load, schedule, group=1)
            check(NAME, results, f"{row}, {name}", measure)
            columns[f"{name}: µs"] = measure.processor
    return columns
