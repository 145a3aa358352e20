"""What a publish costs in a log of few and of many channels: it should not matter how many.

``scripts/bench publish`` makes its rows of this.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

from ssekit.brokers import Retention, connect

BODY = b"data: " + b"x" * 200 + b"\n"


class Cost(NamedTuple):
    channels: int
    seconds: float  # of a publish, the median
    size: int  # what `size` said, once every channel had its events


def publish_costs(
    url: str,
    counts: tuple[int, ...] = (1_000, 10_000, 100_000),
    *,
    events: int = 3,
    measured: int = 2000,
    size: Callable[[], int] = lambda: 0,
) -> list[Cost]:
    """Fill a new log with ever more channels of ``events`` each; time publishes at each count.

    The capacity matches the largest count, so that nothing is given up.
    """
    broker = connect(url, Retention(capacity=max(counts) * (events + 1) + measured * len(counts)))
    costs, filled = [], 0
    for count in counts:
        for n in range(filled, count):
            for _ in range(events):
                broker.append(f"channel {n}", BODY)
        filled, before = count, size()
        taken = []
        for n in range(measured):
            name = f"channel {n * count // measured}"
            started = time.perf_counter()
            broker.append(name, BODY)
            taken.append(time.perf_counter() - started)
        costs.append(Cost(count, median(taken), before))
    broker.close()
    return costs
