"""What a delivery costs in each way that the kernel allows: io_uring, AIO, a write for each.

The C loop and all ways run side by side and deliver a moment's events in turn, so that a round's
ratios are those of the same moment on a shared machine.  The median of many rounds comes with the
interval that holds the true one in 95 of 100 runs.
"""

from __future__ import annotations

import random
import statistics
from contextlib import ExitStack

from bench.fanout import SUBSCRIBERS, Side, check, cost, moments, subscribed, what_is_counted
from bench.measuring import Schedule, deliver
from bench.metrics import interval
from bench.results import Results
from bench.settings import Settings
from bench.subjects import AIO, FANOUT, LOOP, WAYS, YARDSTICK

NAME = "ways"
TURNS = 20
LIMITS = {FANOUT: 1.2, AIO: 1.25}


def run(settings: Settings, results: Results) -> None:
    """Measure each of fan-out's schedules, in turns."""
    subscribers = settings.scaled(SUBSCRIBERS, 10)
    results.title(NAME, f"{subscribers:,} subscribers; {what_is_counted()}, times the C loop's")
    schedules = moments(subscribers)
    turns = settings.rounds * settings.scaled(TURNS, 2)
    subjects = [YARDSTICK, *(way for way in WAYS if settings.wants(way.name))]
    with ExitStack() as stack:
        sides = {
            subject.name: stack.enter_context(subscribed(settings, subscribers, subject))
            for subject in subjects
        }
        for name, schedule in schedules.items():
            taken = [_turn(results, sides, schedule) for _ in range(turns)]
            for row in list(sides)[1:]:
                ratios = [turn[row] / turn[LOOP] for turn in taken]
                _put(results, f"{row}, {name}", ratios, LIMITS.get(row))


def _turn(results: Results, sides: dict[str, Side], schedule: Schedule) -> dict[str, float]:
    costs = {}
    for row in random.sample(list(sides), len(sides)):
        measure = deliver(*sides[row], schedule)
        check(NAME, results, row, measure)
        costs[row] = cost(measure)
    return costs


def _put(results: Results, row: str, ratios: list[float], limit: float | None) -> None:
    low, high = interval(ratios)
    median = statistics.median(ratios)
    results.put(NAME, row, {"x loop": median, "from": low, "to": high, "turns": len(ratios)})
    if limit is not None:
        results.at_most(NAME, f"{row}, times the C loop's", median, limit)
