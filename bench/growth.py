"""What grows with the number of subscribers: a delivery, a publish to others, and idling.

A delivery to one of 15,000 sockets costs the kernel more time than to one of 500, because so many
do not fit into the processor's caches, and the C loop pays that as well.  So where only time can be
measured, growth is that of the cost beside the C loop's.
"""

from __future__ import annotations

import statistics
import time

from bench.fanout import check, cost, pairs, what_is_counted
from bench.load import Load, clients
from bench.measuring import Schedule, deliver, open_streams
from bench.processes import processor_seconds
from bench.results import Results
from bench.servers import Server, fanout
from bench.settings import Settings
from bench.subjects import FANOUT, LOOP, OURS

NAME = "growth"
FEW, MANY = 500, 15_000
DELIVERIES = 300_000
OF_OTHERS = 10
HEARTBEAT = 15.0


def run(settings: Settings, results: Results) -> None:
    """Measure the three."""
    results.title(NAME, "ssekit with few and with many subscribers")
    few, many = settings.scaled(FEW, 20), settings.scaled(MANY, 100)
    for _ in range(settings.rounds):
        for subscribers in (few, many):
            _delivery(settings, results, subscribers)
        _publish(settings, results, many)
    _idle(settings, results, many)
    _judge(results, few, many)


def _row(subscribers: int) -> str:
    return f"{subscribers:,} subscribers"


def _delivery(settings: Settings, results: Results, subscribers: int) -> None:
    [subject] = [subject for subject in OURS if subject.name == FANOUT]
    schedule = Schedule(max(4, round(settings.scaled(DELIVERIES) / subscribers)))
    with pairs(settings, subscribers, [subject]) as measured:
        for _, sides in measured:
            taken = {row: deliver(*side, schedule) for row, side in sides.items()}
            check(NAME, results, FANOUT, taken[FANOUT])
            columns = {
                f"{what_is_counted()} of a delivery": cost(taken[FANOUT]),
                "C loop's": cost(taken[LOOP]),
                "x loop": cost(taken[FANOUT]) / cost(taken[LOOP]),
            }
            results.put(NAME, _row(subscribers), dict(columns))


def _publish(settings: Settings, results: Results, others: int) -> None:
    schedule = Schedule(settings.scaled(2000, 50), channel="few")
    with clients(settings.cores[1]) as load, fanout(settings.cores[0]) as server:
        server.path = "/events/few"
        open_streams(server, load, OF_OTHERS)
        alone = _price_of_publish(server, load, schedule)
        server.path = "/events/many"
        open_streams(server, load, others, group=1)
        among = _price_of_publish(server, load, schedule)
    results.put(NAME, f"publish to {OF_OTHERS}", {"µs of a publish": alone})
    row = f"publish to {OF_OTHERS} among {others:,} others"
    results.put(NAME, row, {"µs of a publish": among, "times alone": among / alone})


def _price_of_publish(server: Server, load: Load, schedule: Schedule) -> float:
    deliver(server, load, schedule)
    taken = [deliver(server, load, schedule).total for _ in range(3)]
    return statistics.median(taken) / schedule.count * 1e6


def _idle(settings: Settings, results: Results, subscribers: int) -> None:
    """Watch two heartbeats of every subscriber go by."""
    heartbeat = max(1.0, HEARTBEAT * min(1.0, settings.scale))
    seconds = heartbeat * 2 + 1
    with (
        clients(settings.cores[1]) as load,
        fanout(settings.cores[0], heartbeat=heartbeat) as server,
    ):
        open_streams(server, load, subscribers)
        load.reset()
        before = processor_seconds(server.pids)
        time.sleep(seconds)
        used = processor_seconds(server.pids) - before
        sent = load.report()["bytes"]
    columns = {"% of a core": used / seconds * 100, "bytes each": sent / subscribers}
    results.put(NAME, f"{subscribers:,} idle", dict(columns))
    results.note(NAME, f"idle: {seconds:g} s with a heartbeat each {heartbeat:g} s")


def _judge(results: Results, few: int, many: int) -> None:
    what = what_is_counted()
    column = "x loop" if what == "processor time" else f"{what} of a delivery"
    grown, before = (results.median(NAME, _row(number), column) for number in (many, few))
    if grown and before:
        text = f"{what} of a delivery{' beside the loop' * (column == 'x loop')}"
        text += f", {many:,} subscribers to {few:,}"
        results.at_most(NAME, text, grown / before, 1.2)
    row = f"publish to {OF_OTHERS} among {many:,} others"
    value = results.median(NAME, row, "times alone")
    results.at_most(NAME, "a publish to ten among many, times one among none", value, 1.2)
    row = f"{many:,} idle"
    results.at_most(NAME, "% of a core while idle", results.median(NAME, row, "% of a core"), 3)
