"""What counting and being scraped every 15 seconds add to a delivery.

One server counts and does not count in turn, for a moment each, so that both sides of a pair have
the same processor, memory and neighbours.  A single pair says little on a shared machine; the
median of many comes with the interval that holds the true one in 95 of 100 runs.  As that is
seldom narrow, counting is also timed where it is done.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from bench.fanout import SUBSCRIBERS, check, cost, moments
from bench.herd import get
from bench.load import Load, clients
from bench.measuring import Delivered, Schedule, deliver, open_streams
from bench.results import Results
from bench.servers import Server, counted
from bench.settings import Settings

NAME = "metrics"
PAIRS = 30
LIMIT = 1.0
"""Per cent."""


def run(settings: Settings, results: Results) -> None:
    """Measure each of fan-out's schedules with and without counting, in pairs."""
    subscribers = settings.scaled(SUBSCRIBERS, 10)
    results.title(NAME, f"{subscribers:,} subscribers, metrics scraped every 15 seconds")
    schedules = moments(subscribers)
    pairs = settings.rounds * settings.scaled(PAIRS, 2)
    with clients(settings.cores[1]) as load, counted(settings.cores[0]) as server:
        open_streams(server, load, subscribers)
        for name, schedule in schedules.items():
            deliver(server, load, schedule)
            added = [_added(results, server, load, schedule, number) for number in range(pairs)]
            low, high = interval(added)
            median = statistics.median(added)
            results.put(NAME, name, {"% added": median, "from": low, "to": high, "pairs": pairs})
            if high - low > 2 * LIMIT:
                results.note(NAME, f"{name}: the machine is too busy to tell one per cent")
            else:
                results.at_most(NAME, f"{name}: per cent that metrics add", median, LIMIT)
        get(server, "/counting/on")
        get(server, "/counting/timed")
        for name, schedule in schedules.items():
            part = statistics.median(_timed(server, load, schedule) for _ in range(pairs // 4 + 1))
            results.put(NAME, name, {"% in place": part})
            results.at_most(NAME, f"{name}: per cent of the time for counting", part, LIMIT)


def _added(results: Results, server: Server, load: Load, schedule: Schedule, number: int) -> float:
    """Return by how many per cent counting raises the cost; it comes first in every other pair."""
    measured: dict[str, Delivered] = {}
    for state in ("on", "off") if number % 2 else ("off", "on"):
        get(server, f"/counting/{state}")
        measured[state] = deliver(server, load, schedule)
        check(NAME, results, f"ssekit, counting {state}", measured[state])
    return (cost(measured["on"]) / cost(measured["off"]) - 1) * 100


def _timed(server: Server, load: Load, schedule: Schedule) -> float:
    """Return which per cent of the processor time are spent where it is counted."""
    get(server, "/counting/took")
    total = deliver(server, load, schedule).total
    return float(get(server, "/counting/took")) / total * 100


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return between which of some values their true median lies, in 95 of 100 cases."""
    ordered = sorted(values)
    # The number of values below the median is binomial: n / 2, with a deviation of sqrt(n) / 2.
    away = math.ceil(0.98 * math.sqrt(len(ordered)))
    middle = len(ordered) // 2
    return ordered[max(0, middle - away)], ordered[min(len(ordered) - 1, middle + away)]
