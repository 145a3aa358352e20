"""1,000 readers that stop reading while 10,000 events of 1 KB go out, and read again.

Two runs come first, each with a server of its own, so that what the stopped readers cost can be
told from what the events cost: in one everybody reads, which gives the latency to compare with; in
the other there are only those who go on, which gives the worker's growth by the log alone.  After
the third run most of the stopped read again.  The rest stay stopped for as many events more, then
give their connections up and come back with Last-Event-ID.  Each must have everything, once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

from bench.load import Load, clients
from bench.measuring import Schedule, deliver, open_streams
from bench.processes import BenchError, proportional_set_size
from bench.results import Results
from bench.servers import Server, fanout
from bench.settings import Settings

NAME = "slow-readers"
READERS, STOPPED, LATER = 50, 900, 100
GO_ON, STOP, STOP_LONGER = range(3)  # groups of the load
EVENTS, SIZE = 10_000, 1024
RATE = 100  # a second, which a core can send to all of them
QUICKLY = 1000  # a second, to the few alone
HISTORY = 20_000
BASE, ALONE, AMONG = "all read", "only those who go on", "the others stopped"


def run(settings: Settings, results: Results) -> None:
    """Publish to all who read, to few, and among many who do not; let these read again."""
    streams = [settings.scaled(number, 5) for number in (READERS, STOPPED, LATER)]
    schedule = Schedule(settings.scaled(EVENTS, 200), rate=RATE, size=SIZE)
    stopped = sum(streams[1:])
    results.title(
        NAME,
        f"{stopped:,} readers stop, {streams[0]} go on; {schedule.count:,} events of {SIZE} bytes",
    )
    with _serving(settings, schedule, streams) as (server, load):
        base = _reach(results, BASE, server, load, replace(schedule, count=schedule.count // 5))
    with _serving(settings, schedule, streams) as (server, load):
        for group in (STOP, STOP_LONGER):  # Opened like the others, as that leaves its traces.
            load.do("shut", group)
        alone = _reach(results, ALONE, server, load, replace(schedule, rate=QUICKLY))
    with _serving(settings, schedule, streams) as (server, load):
        for group in (STOP, STOP_LONGER):
            load.do("pause", group)
        among = _reach(results, AMONG, server, load, schedule)
        _read_again(results, server, load, schedule)
    each = (among["grew"] - alone["grew"]) / 1024 / stopped
    results.at_most(NAME, "KB by which the worker grows for a stopped reader", each, 2)
    ratio = among["p99"] / base["p99"]
    results.at_most(NAME, "p99 of those who go on, times that when all read", ratio, 2)


@contextmanager
def _serving(
    settings: Settings, schedule: Schedule, streams: list[int]
) -> Iterator[tuple[Server, Load]]:
    """Run ssekit with a history of twice the events, and streams that come back when dropped."""
    history = max(2 * schedule.count, round(HISTORY * settings.scale)) + len(streams)
    with (
        clients(settings.cores[1]) as load,
        fanout(settings.cores[0], history=history) as server,
    ):
        server.flags = "r"
        for group, number in enumerate(streams):
            open_streams(server, load, number, group)
            deliver(server, load, Schedule(1), group)  # what is made once is made before
        yield server, load


def _reach(
    results: Results, row: str, server: Server, load: Load, schedule: Schedule
) -> dict[str, Any]:
    """Publish to those who go on; returns what they counted and by what the worker grew."""
    load.reset()
    before = proportional_set_size(server.worker)
    server.publish(**asdict(schedule))
    report = load.wait(schedule.count, schedule.count / schedule.rate + 60, GO_ON)
    if report["least"] != schedule.count or report["repeats"] or report["gaps"]:
        raise BenchError(f"{row}: those who go on have not got everything once: {report}")
    report["grew"] = proportional_set_size(server.worker) - before
    columns = {
        "worker grew, MB": report["grew"] / 1024**2,
        "p50, ms": report["p50"] / 1000,
        "p99, ms": report["p99"] / 1000,
    }
    results.put(NAME, row, dict(columns))
    return report


def _read_again(results: Results, server: Server, load: Load, schedule: Schedule) -> None:
    load.do("continue", STOP)
    first = load.wait(schedule.count, 120, STOP)
    _everything(results, "read again", first, schedule.count)
    further = {**asdict(schedule), "rate": QUICKLY, "first": schedule.count + 1}
    server.publish(**further)
    load.wait(2 * schedule.count, schedule.count / QUICKLY + 60, GO_ON)
    load.do("again", STOP_LONGER)
    last = load.wait(2 * schedule.count, 120, STOP_LONGER)
    _everything(results, "read again later", last, 2 * schedule.count)


def _everything(results: Results, row: str, report: dict[str, Any], wanted: int) -> None:
    lost = report["open"] * wanted - report["deliveries"] + report["repeats"]
    columns = {
        "lost": lost,
        "repeated": report["repeats"],
        "came back by id": report["came_back"],
        "told of a loss": report["stream_resets"],
        "seconds": report["seconds"],
    }
    results.put(NAME, row, dict(columns))
    wrong = lost + report["repeats"] + report["gaps"] + report["stream_resets"]
    results.at_most(NAME, f"events lost or repeated at those who {row}", wrong, 0)
