"""What a publish costs in a log of ever more channels: neither its time nor its room may grow.

A log is filled with channels of a few events each, and publishes are timed when a tenth of them is
there, when all are, and when the log is full and each event makes another be given up.  At the end
some channels are read after each of their events: what they have lost is told, and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import NamedTuple

from bench.logs import measure_each, new_log
from bench.processes import BenchError
from bench.results import Results
from bench.settings import Settings
from ssekit.brokers import Broker, HistoryLost, Retention, connect

NAME = "channels"
CHANNELS = 100_000
EVENTS = 3
"""Of each channel."""
MEASURED = 2_000
WATCHED = 500
"""Channels that are read at the end."""
BODY = b"data: " + b"x" * 200 + b"\n"


class Cost(NamedTuple):
    channels: int
    seconds: float  # of a publish, the median
    size: float  # that the log has grown by for each event so far


class Resets(NamedTuple):
    """How often a reader is told that it has lost history where it has not, and the reverse."""

    false: int
    silent: int
    told: int  # and rightly so


def publish_costs(
    broker: Broker,
    counts: Sequence[int],
    *,
    events: int = EVENTS,
    measured: int = MEASURED,
    size: Callable[[], int] = lambda: 0,
) -> list[Cost]:
    """Fill a new log with ever more channels; time publishes in all of them at each count."""
    costs, filled, empty = [], 0, size()
    for count in counts:
        for n in range(filled, count):
            for _ in range(events):
                broker.append(_name(n), BODY)
        filled, grown = count, size() - empty
        costs.append(Cost(count, _time(broker, count, measured), grown / (count * events)))
    return costs


def _name(n: int) -> str:
    return f"channel {n}"


def _time(broker: Broker, channels: int, measured: int) -> float:
    """Return the median of publishes that are spread over all channels."""
    taken = []
    for n in range(measured):
        name = _name(n * channels // measured)
        started = time.perf_counter()
        broker.append(name, BODY)
        taken.append(time.perf_counter() - started)
    return median(taken)


def events_of(broker: Broker, channels: Sequence[str]) -> dict[str, list[str]]:
    """Return the ids of the events that channels have."""
    return {name: [entry.id for entry in broker.history([name], 1000, None)] for name in channels}


def resets(broker: Broker, published: Mapping[str, Sequence[str]]) -> Resets:
    """Read channels from the log's beginning and after each of the events that they once had."""
    beginning = f"{broker.tip().partition('-')[0]}-0"
    false = silent = told = 0
    for name, kept in events_of(broker, list(published)).items():
        ids = published[name]
        for n, cursor in enumerate([beginning, *ids]):
            has_lost = not set(ids[n:]) <= set(kept)
            try:
                broker.read([name], cursor, 1)
            except HistoryLost:
                told += has_lost
                false += not has_lost
            else:
                silent += has_lost
    return Resets(false, silent, told)


def run(settings: Settings, results: Results) -> None:
    """Measure each kind of log once."""
    channels = settings.scaled(CHANNELS, 100)
    results.title(NAME, f"{channels:,} channels with {EVENTS} events each, and a publish in them")
    measure_each(settings, results, NAME, lambda kind: _measure(settings, results, kind, channels))


def _measure(settings: Settings, results: Results, kind: str, channels: int) -> None:
    measured = settings.scaled(MEASURED, 100)
    room = channels * EVENTS + 2 * measured
    with new_log(kind) as log:
        broker = connect(log.url, Retention(capacity=room))
        few, many = publish_costs(
            broker, (channels // 10, channels), measured=measured, size=log.size
        )
        published = events_of(broker, _sample(channels))
        if not all(len(ids) >= EVENTS for ids in published.values()):
            raise BenchError("a channel has lost events before the log was full")
        early = resets(broker, published)
        before = log.size()
        for n in range(channels // 10):  # Now each event makes another be given up.
            for _ in range(EVENTS):
                broker.append(_name(channels + n), BODY)
        full, grown = _time(broker, channels, measured), log.size() / before
        late = resets(broker, published)
        broker.close()
    columns = {
        "a publish, µs: in a tenth": few.seconds * 1e6,
        "a publish, µs: in all": many.seconds * 1e6,
        "a publish, µs: when full": full * 1e6,
        "bytes an event: in a tenth": few.size,
        "bytes an event: in all": many.size,
        "when full: times the room": grown,
        "resets: told": early.told + late.told,
        "resets: false": early.false + late.false,
        "resets: silent": early.silent + late.silent,
    }
    results.put(NAME, kind, dict(columns))
    slower = many.seconds / few.seconds
    results.at_most(NAME, f"{kind}: a publish in all, times one in a tenth", slower, 2)
    # It also has another event be given up, which is dearer than to store one.
    results.at_most(NAME, f"{kind}: a publish when full, times one before", full / many.seconds, 3)
    larger = many.size / few.size
    results.at_most(NAME, f"{kind}: bytes an event in all, times those in a tenth", larger, 1.2)
    results.at_most(NAME, f"{kind}: room when full, times that before", grown, 1.25)
    wrong = columns["resets: false"] + columns["resets: silent"]
    results.at_most(NAME, f"{kind}: false resets and silent losses", wrong, 0)
    results.at_least(NAME, f"{kind}: losses that were told", late.told, 1)


def _sample(channels: int) -> list[str]:
    step = max(1, channels // WATCHED)
    return [_name(n) for n in range(0, channels, step)]
