"""1,000 subscribers of one channel: what a delivery costs, beside the C loop and the peers."""

from __future__ import annotations

import statistics
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager

from bench import counters
from bench.load import Load, clients
from bench.measuring import Delivered, Schedule, deliver, open_streams, system_calls
from bench.processes import BenchError
from bench.results import Results
from bench.servers import Server
from bench.settings import Settings
from bench.subjects import (
    FANOUT,
    LOOP,
    OURS,
    PEERS,
    QUEUE,
    YARDSTICK,
    Subject,
)

NAME = "fanout"
SUBSCRIBERS = 1000
DELIVERIES = 45_000  # a second, at the fixed rate

Side = tuple[Server, Load]


def run(settings: Settings, results: Results) -> None:
    """Measure every subject next to the C loop, in interleaved rounds."""
    subscribers = settings.scaled(SUBSCRIBERS, 10)
    results.title(NAME, f"{subscribers:,} subscribers of one channel, 118-byte frames")
    subjects = available(NAME, settings, results, OURS + PEERS)
    for _ in range(settings.rounds):
        with pairs(settings, subscribers, subjects) as measured:
            for name, sides in measured:
                share = next(subject.share for subject in subjects if subject.name == name)
                _take(results, sides, _schedules(settings, subscribers, share))
    _explain(results)
    _judge(results)


def available(
    bench: str, settings: Settings, results: Results, subjects: list[Subject]
) -> list[Subject]:
    """Return the subjects to measure; note why the others are skipped."""
    wanted = [subject for subject in subjects if settings.wants(subject.name)]
    for subject in wanted:
        if missing := subject.missing():
            results.note(bench, f"{subject.name} skipped: {missing}")
    return [subject for subject in wanted if not subject.missing()]


@contextmanager
def pairs(
    settings: Settings, subscribers: int, subjects: list[Subject]
) -> Iterator[Iterator[tuple[str, dict[str, Side]]]]:
    """Run the C loop, and beside it one subject after the other, all with their subscribers."""

    def one_by_one() -> Generator[tuple[str, dict[str, Side]], None, None]:
        for subject in subjects:
            with subscribed(settings, subscribers, subject) as side:
                yield subject.name, {LOOP: yardstick, subject.name: side}

    with (
        subscribed(settings, subscribers, YARDSTICK) as yardstick,
        closing(one_by_one()) as measured,
    ):
        yield measured


@contextmanager
def subscribed(settings: Settings, subscribers: int, subject: Subject) -> Iterator[Side]:
    """Run a subject, with its subscribers."""
    # Each has clients of its own, as one process may not open enough descriptors for both.
    with clients(settings.cores[1]) as load, subject.start(settings.cores[0]) as server:
        open_streams(server, load, subscribers)
        deliver(server, load, Schedule(3))  # What is made at the first event is made now.
        yield server, load


def fixed_rate(subscribers: int) -> float:
    """Return the events a second that make the fixed rate of deliveries, or a part of it."""
    return DELIVERIES * min(1.0, subscribers / SUBSCRIBERS) / subscribers


def moments(subscribers: int) -> dict[str, Schedule]:
    """Return a moment of each schedule, for what is measured in turns."""
    rate = fixed_rate(subscribers)
    return {
        "saturation": Schedule(60),
        f"{rate * subscribers:,.0f}/s": Schedule(round(rate / 2), rate=rate),
        "bursts of ten": Schedule(200, burst=10),
    }


def _schedules(settings: Settings, subscribers: int, share: float) -> dict[str, Schedule]:
    """Return what is published; a slow subject gets a share of what is not at a fixed rate."""
    rate = fixed_rate(subscribers)
    return {
        "saturation": Schedule(settings.scaled(round(400 * share), 10)),
        f"{rate * subscribers:,.0f}/s": Schedule(settings.scaled(round(rate * 4), 10), rate=rate),
        "bursts of ten": Schedule(settings.scaled(round(80 * share), 2) * 10, burst=10),
    }


def _take(results: Results, sides: dict[str, Side], schedules: dict[str, Schedule]) -> None:
    """Let both sides follow each schedule in turn: the C loop and the subject."""
    for name, schedule in schedules.items():
        taken = {row: deliver(*side, schedule) for row, side in sides.items()}
        for row, measure in taken.items():
            results.put(NAME, row, _columns(name, measure, taken[LOOP]))
            check(NAME, results, f"{row}, {name}", measure)
    for row, side in sides.items():
        results.put(NAME, row, {"system calls": system_calls(*side, Schedule(10))})


def _columns(name: str, measure: Delivered, loop: Delivered) -> dict[str, float | None]:
    columns: dict[str, float | None] = {
        f"{name}: instructions": measure.instructions,
        f"{name}: µs": measure.processor,
        f"{name}: x loop": cost(measure) / cost(loop),
    }
    if name == "saturation":
        columns[f"{name}: deliveries/s"] = measure.rate
        columns[f"{name}: of loop's"] = measure.rate / loop.rate
    return columns


def cost(measure: Delivered) -> float:
    """Return instructions per delivery, or processor time where they cannot be counted."""
    return measure.instructions if measure.instructions is not None else measure.processor


def what_is_counted() -> str:
    """Return the name of what `cost` returns on this machine."""
    return "processor time" if counters.why_not(counters.INSTRUCTIONS) else "instructions"


def check(bench: str, results: Results, what: str, measure: Delivered) -> None:
    """Note what did not arrive, or arrived twice; of ssekit and the C loop it is an error."""
    if measure.missing or measure.repeats:
        text = f"{what}: {measure.missing} deliveries missing, {measure.repeats} repeated"
        if what.startswith(("ssekit", LOOP)):
            raise BenchError(text)
        results.note(bench, text)


def _explain(results: Results) -> None:
    results.note(NAME, "µs: processor time of the server's processes for one delivery of one event")
    if why := counters.why_not(counters.INSTRUCTIONS):
        results.note(NAME, f"instructions not counted ({why}): x loop is of processor time")
    else:
        results.note(NAME, "instructions: user and kernel, of one delivery; x loop is of them")


def _judge(results: Results) -> None:
    what = what_is_counted()
    columns = results.columns(NAME)
    for column in (c for c in columns if c.endswith("x loop")):
        name = column.partition(": ")[0]
        limit = 0.3 if name == "bursts of ten" else 1.2
        value = results.median(NAME, FANOUT, column)
        results.at_most(NAME, f"{what} per event, {name}, times the C loop's", value, limit)
        if name != "bursts of ten":
            _judge_peers(results, column, value)
    rate = results.median(NAME, FANOUT, "saturation: of loop's")
    results.at_least(NAME, "deliveries a second at saturation, of the C loop's", rate, 0.75)
    results.at_least(NAME, "and times the generator and queue's", _times_queue(results), 3)


def _judge_peers(results: Results, column: str, ours: float | None) -> None:
    found = (results.median(NAME, peer.name, column) for peer in PEERS)
    best = min((value for value in found if value is not None), default=None)
    if ours is not None and best is not None:
        results.at_most(NAME, f"the same ({column}), times the best peer's", ours / best, 1)


def _times_queue(results: Results) -> float | None:
    """Return the median over the rounds of the two rates' ratio, both of one round."""
    name = "saturation: deliveries/s"
    rows = results.figures.get(NAME, {})
    ours, queue = (rows.get(row, {}).get(name, []) for row in (FANOUT, QUEUE))
    ratios = [a / b for a, b in zip(ours, queue, strict=False)]
    return statistics.median(ratios) if ratios else None
