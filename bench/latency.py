"""From publish to arrival, at a fixed 45,000 deliveries a second to 1,000 subscribers.

The C loop's own latency is that of sending to a thousand sockets one after the other, so the other
servers are held against it, each in turn with it.
"""

from __future__ import annotations

from bench.fanout import SUBSCRIBERS, available, check, fixed_rate, pairs
from bench.measuring import Schedule, deliver
from bench.results import Results
from bench.settings import Settings
from bench.subjects import FANOUT, LOOP, OURS, PEERS

NAME = "latency"


def run(settings: Settings, results: Results) -> None:
    """Measure the latency of every subject next to the C loop's, in interleaved rounds."""
    subscribers = settings.scaled(SUBSCRIBERS, 10)
    rate = fixed_rate(subscribers)
    pace = f"{rate * subscribers:,.0f} deliveries a second"
    results.title(NAME, f"{subscribers:,} subscribers, {pace}, milliseconds")
    subjects = available(NAME, settings, results, OURS + PEERS)
    schedule = Schedule(settings.scaled(round(rate * 4), 10), rate=rate)
    for _ in range(settings.rounds):
        with pairs(settings, subscribers, subjects) as measured:
            for _, sides in measured:
                taken = {row: deliver(*side, schedule) for row, side in sides.items()}
                for row, measure in taken.items():
                    results.put(
                        NAME,
                        row,
                        {
                            "p50": measure.p50 / 1000,
                            "p99": measure.p99 / 1000,
                            "p99 x loop": measure.p99 / taken[LOOP].p99,
                        },
                    )
                    check(NAME, results, row, measure)
    value = results.median(NAME, FANOUT, "p99 x loop")
    results.at_most(NAME, "p99 of ssekit, times the C loop's", value, 1.5)
