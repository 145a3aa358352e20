"""One measure: a server delivers a schedule's events to its clients, and what that cost.

It brings a `Server`, the `Load` and the processor's counters together, and knows no bench.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from bench import counters
from bench.load import Load
from bench.processes import BenchError, processor_seconds, until
from bench.servers import Server

EVENT = 82  # bytes of data, which make a frame of about 118


@dataclass(frozen=True)
class Schedule:
    """What is published: see ``bench/apps/schedule.py``."""

    count: int
    rate: float = 0
    burst: int = 1
    size: int = EVENT
    channel: str = "bench"


@dataclass(frozen=True)
class Delivered:
    """What a schedule cost; times are microseconds, of one delivery where it says so."""

    deliveries: int
    missing: int
    repeats: int
    processor: float
    """Processor time of one delivery, user and kernel, of all the server's processes."""
    rate: float
    """Deliveries a second, from publishing to the last arrival."""
    p50: float
    p99: float
    instructions: float | None
    """Of one delivery, user and kernel; None where they cannot be counted."""
    total: float
    """Seconds of processor time in all."""


def deliver(
    server: Server, load: Load, schedule: Schedule, group: int = 0, seconds: float = 60
) -> Delivered:
    """Publish a schedule and measure until all clients of the group have all of it.

    After ``seconds`` it is measured what has arrived, and ``missing`` says how much has not.
    Raises BenchError where nothing has, or where the server ended a stream.
    """
    load.reset()
    with counters.counting(server.pids, counters.INSTRUCTIONS) as counts:
        before = processor_seconds(server.pids)
        server.publish(**asdict(schedule))
        report = load.wait(schedule.count, seconds, group)
        used = processor_seconds(server.pids) - before
    deliveries = report["deliveries"]
    if not deliveries or report["ended"] or report["cut"]:
        raise BenchError(f"{schedule} brought: {report}")
    return Delivered(
        deliveries=deliveries,
        missing=report["open"] * schedule.count - deliveries + report["repeats"],
        repeats=report["repeats"],
        processor=used / deliveries * 1e6,
        rate=deliveries / max(report["seconds"], 1e-6),
        p50=report["p50"],
        p99=report["p99"],
        instructions=sum(counts.values()) / deliveries if counts else None,
        total=used,
    )


def open_streams(server: Server, load: Load, clients: int, group: int = 0) -> float:
    """Open the clients' streams; returns the seconds that it took."""
    seconds = load.open(clients, server.port, server.path, group=group, flags=server.flags)
    until(lambda: server.settled(clients), 60, "all streams to be subscribed")
    return seconds


def system_calls(server: Server, load: Load, schedule: Schedule) -> float | None:
    """Return the system calls of one delivery; None where they cannot be counted."""
    load.reset()
    with counters.counting(server.pids, counters.SYSTEM_CALLS) as counts:
        server.publish(**asdict(schedule))
        report = load.wait(schedule.count, 30)
    return sum(counts.values()) / report["deliveries"] if counts else None
