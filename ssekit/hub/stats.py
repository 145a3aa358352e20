"""What is going on in a hub, as a value: of this process, and of all processes of its server."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from ssekit.brokers import Broker, HistoryLost, id_of, parse_id
from ssekit.errors import BrokerUnavailable
from ssekit.host.counting import BOUNDS, CAUSES, ENDED, Counts, bucket


@dataclass(frozen=True)
class Histogram:
    """How long something took, in seconds."""

    counts: tuple[int, ...]
    """How often it took at most each of `bounds`, and more than the bound before; the last entry,
    which has no bound, is for what took longer than all of them."""
    sum: float
    """The seconds of all together."""

    bounds = BOUNDS

    @property
    def count(self) -> int:
        """How often it happened."""
        return sum(self.counts)


@dataclass(frozen=True)
class Numbers:
    """The numbers of one process, or of several together.

    Those that say how many there are now count only processes that live; all others only grow.
    """

    streams: int
    """Open now."""
    taken_over: int
    """Of them, those that the fan-out serves; the others have a greenlet or a thread each."""
    lagging: int
    """Of those taken over, the ones that have not caught up."""
    opened: int
    ended: Mapping[str, int]
    """By the reason that `ssekit.streams` logs."""
    rejected: Mapping[str, int]
    """By cause: which limit was met."""
    events: int
    """Delivered: one event to 100 streams is 100."""
    bytes: int
    """Delivered, heartbeats included."""
    published: int
    refused: int
    """Events that publishing raised `InvalidEvent`, ValueError or `ChannelFinished` for."""
    failed: int
    """Events that publishing raised `BrokerUnavailable` for."""
    resets: int
    """Clients that were told that history was lost."""
    authorized: int
    unauthorized: int
    """Clients that an endpoint answered 400, 401 or 403."""
    members: int
    """Present, by the processes that hold them."""
    outages: int
    """How often a process could no longer reach the log."""
    away: int
    """The processes that cannot reach it now."""
    entries: int
    """Entries of the log in memory."""
    entry_bytes: int
    behind_events: int | None
    """Entries that a process has yet to read, the most of all; None if that is not known."""
    behind_seconds: float | None
    """How long the oldest of them has been in the log."""
    publish: Histogram
    """How long publishing took."""
    delay: Histogram
    """From when an event was stored, by the log's clock, to when it was sent to the streams."""

    @property
    def iterated(self) -> int:
        """The open streams that have a greenlet or a thread each."""
        return self.streams - self.taken_over


@dataclass(frozen=True)
class Stats:
    """What is going on in a hub."""

    process: Numbers
    """This process."""
    server: Numbers
    """All processes of this machine whose hub has the same URL, ended ones included."""
    workers: Mapping[int, Numbers]
    """By process id, those that live and have streams or subscriptions.  The counters of another
    process begin with those of ended ones that it has taken over."""
    channels: Mapping[str, Mapping[str, int]]
    """By channel, events ``published`` and delivered (``events``), if channels were named for it
    (see `ssekit.metrics.Metrics`)."""
    end: str | None
    """The id of the log's end; None if the log cannot be reached."""


def stats_of(broker: Broker, counts: Counts) -> Stats:
    """Return what was counted, and where the log is."""
    log = _Log(broker)
    totals, each = counts.totals()
    behind = {pid: log.behind(found) for pid, found in each.items()}
    known = [one for one in behind.values() if one is not None]
    worst = max(known, key=lambda one: one[0]) if known else None
    own = counts.own()
    return Stats(
        _numbers(own, log.behind(own)),
        _numbers(totals, worst),
        {pid: _numbers(found, behind[pid]) for pid, found in sorted(each.items())},
        counts.of_channels(),
        log.end,
    )


class _Log:
    """Where the log ends, and how far behind it a process is."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.end: str | None = None
        try:
            self.end = broker.tip()
        except BrokerUnavailable:
            return
        self._epoch, self._position = parse_id(self.end)

    def behind(self, found: Mapping[str, int]) -> tuple[int, float | None] | None:
        """Return how many entries a process has yet to read, and the age of the oldest."""
        if self.end is None or not found["following"] or found["epoch"] != self._epoch:
            return None
        events = max(self._position - found["position"], 0)
        return events, self._age(found["position"]) if events else 0.0

    def _age(self, position: int) -> float | None:
        try:
            entries, _ = self._broker.follow(id_of(self._epoch, position), 0)
        except (BrokerUnavailable, HistoryLost):
            return None
        return max(time.time() - entries[0].time, 0.0) if entries else 0.0


def _numbers(found: Mapping[str, int], behind: tuple[int, float | None] | None) -> Numbers:
    return Numbers(
        streams=found["streams"],
        taken_over=found["taken over"],
        lagging=found["lagging"],
        opened=found["opened"],
        ended={reason: found[f"ended {reason}"] for reason in ENDED},
        rejected={cause: found[f"rejected {cause}"] for cause in CAUSES},
        events=found["events"],
        bytes=found["bytes"],
        published=found["published"],
        refused=found["refused"],
        failed=found["failed"],
        resets=found["resets"],
        authorized=found["authorized"],
        unauthorized=found["unauthorized"],
        members=found["members"],
        outages=found["outages"],
        away=found["away"],
        entries=found["entries"],
        entry_bytes=found["entry bytes"],
        behind_events=None if behind is None else behind[0],
        behind_seconds=None if behind is None else behind[1],
        publish=_histogram("publish", found),
        delay=_histogram("delay", found),
    )


def _histogram(name: str, found: Mapping[str, int]) -> Histogram:
    counts = tuple(found[bucket(name, number)] for number in range(len(BOUNDS) + 1))
    return Histogram(counts, found[f"{name} microseconds"] / 1e6)
