"""What is counted about a hub in this process, for all processes of its server to sum.

The table below has every number.  The stream, the hub and the fan-out call `Counts`; they count for
a batch of events or a group of clients, never for each delivery.  Where the numbers are kept is
`ssekit.host.shared_counters`' business: until `Counts.begin`, and where there can be no file, in
this process alone, so that a script that only publishes opens no file for them.

This module knows no hub and no metrics format.
"""

from __future__ import annotations

import os
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from math import inf
from pathlib import Path

from ssekit.errors import BrokerUnavailable
from ssekit.host.counter_files import SUFFIX
from ssekit.host.shared_counters import SharedCounters, details_of, join, leave

ENDED = (
    "client disconnected",
    "source ended",
    "source failed",
    "producer failed",
    "too slow",
    "process ending",
    "delivery failed",
    "history lost",
    "grant expired",
    "revoked",
    "disconnected by the application",
    "the log of revocations is away",
    "lifetime over",
    "other",
)
"""Why streams end; the last for every other reason."""
REJECTED = {
    "max_streams": "max_streams",
    "max_per_address": "max_per_address",
    "limit of open files": "open files",
    "the server answers": "server capacity",
    "too many clients are being authorized": "authorizing",
    "authorize failed": "authorize failed",
    "the log of revocations is away": "outage",
}
"""By how a reason begins, why clients were rejected; "other" for every other reason."""
CAUSES = (*dict.fromkeys(REJECTED.values()), "other")
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""The upper bounds of the histograms' buckets, in seconds; one more bucket has no bound."""
HISTOGRAMS = ("publish", "delay")
"""Seconds of a publish, and from when an event was stored to when it was sent."""


def bucket(histogram: str, number: int) -> str:
    """Return the name of a bucket's counter."""
    return f"{histogram} le {number}"


PUBLISHES, DELAYS = (
    tuple(bucket(name, number) for number in range(len(BOUNDS) + 1)) for name in HISTOGRAMS
)

COUNTERS = (
    "opened",
    *(f"ended {reason}" for reason in ENDED),
    *(f"rejected {cause}" for cause in CAUSES),
    "events",
    "bytes",
    "published",
    "refused",
    "failed",
    "resets",
    "authorized",
    "unauthorized",
    "outages",
    *PUBLISHES,
    *DELAYS,
    *(f"{name} microseconds" for name in HISTOGRAMS),
)
GAUGES = (
    "streams",
    "taken over",
    "lagging",
    "members",
    "following",  # whether the process reads the log
    "away",  # whether it cannot just now
    "epoch",
    "position",
    "entries",
    "entry bytes",
)
OF_A_CHANNEL = ("published", "events")
"""What is counted of each channel that was named in `Counts.watch`."""


class Counts:
    """The numbers of one hub in this process; ``path`` is the file that its server shares."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.channels: frozenset[str] = frozenset()
        """The channels that are counted one by one."""
        self.at_once = False
        """Whether a process shares its numbers from its first publish on.

        Otherwise it does so when it has streams or has lived for some seconds: scripts end before.
        """
        self._numbers = SharedCounters(None, COUNTERS, GAUGES)
        self._of_channels: SharedCounters | None = None
        self._process = 0

    def begin(self) -> None:
        """Share the numbers with the server's other processes from now on."""
        if self.path is None or self._process == os.getpid():
            return
        first, self._process = not self._process, os.getpid()
        if first:
            own, self._numbers = self._numbers, join(self.path, COUNTERS, GAUGES)
            for name, value in own.totals()[0].items():
                if value:
                    self._numbers.add(name, value)
        self._numbers.add("opened", 0)  # A child of the one that shared them has to open the file.
        if self._of_channels is not None:
            self._of_channels.add(_of_channel("events", min(self.channels)), 0)

    def end(self) -> None:
        """Share the numbers no more."""
        if self._process and self.path is not None:
            self._process, self.path = 0, None
            leave(self._numbers)
        if self._of_channels is not None:
            leave(self._of_channels)
            self._of_channels = None

    def watch(self, channels: Iterable[str]) -> None:
        """Count these channels one by one, too."""
        self.channels = frozenset(channels)
        if self.channels:
            names = _names_of(self.channels)
            self._of_channels = join(_path_of(self.path, names), names)

    def add(self, name: str, amount: int = 1) -> None:
        """Add to one of the numbers; a gauge may be lowered."""
        self._numbers.add(name, amount)

    def set(self, name: str, value: int) -> None:
        """Set a gauge."""
        self._numbers.set(name, value)

    def follows(self, epoch: int, position: int, entries: int, size: int) -> None:
        """The process has read the log up to a position, and has so many entries in memory."""
        self._numbers.change(
            (),
            (
                ("following", 1),
                ("epoch", epoch),
                ("position", position),
                ("entries", entries),
                ("entry bytes", size),
            ),
        )

    def opened(self) -> None:
        """A stream has opened."""
        self._numbers.change((("opened", 1), ("streams", 1)))

    def ended(self, reason: str) -> None:
        """A stream has ended."""
        name = f"ended {reason if reason in ENDED else 'other'}"
        self._numbers.change(((name, 1), ("streams", -1)))

    def rejected(self, reason: str) -> None:
        """A client was rejected."""
        for begins, cause in REJECTED.items():
            if reason.startswith(begins):
                self.add(f"rejected {cause}")
                return
        self.add("rejected other")

    def delivered(self, events: int, size: int) -> None:
        """So many events and bytes were given to the kernel or the server."""
        self._numbers.change((("events", events), ("bytes", size)))

    def sent(self, delays: Sequence[float]) -> None:
        """Events were sent so many seconds after they were stored."""
        total = max(int(sum(delays) * 1e6), 0)
        self._numbers.change([*_buckets(DELAYS, delays), ("delay microseconds", total)])

    def in_channel(self, name: str, channel: str, amount: int = 1) -> None:
        """Add to a number of one of `channels`."""
        if self._of_channels is not None and channel in self.channels:
            self._of_channels.add(_of_channel(name, channel), amount)

    def published(self, channel: str, seconds: float) -> None:
        """An event was published, which took so long."""
        if self.at_once and not self._process:
            self.begin()
        self._numbers.change(
            (
                ("published", 1),
                (PUBLISHES[bisect_left(BOUNDS, seconds)], 1),
                ("publish microseconds", int(seconds * 1e6)),
            )
        )
        if channel in self.channels:
            self.in_channel("published", channel)

    def published_each(self, channels: Sequence[str], times: Sequence[float]) -> None:
        """Events were published in these channels, each in so many seconds."""
        total = int(sum(times) * 1e6)
        of_all = (("published", len(times)), ("publish microseconds", total))
        self._numbers.change([*_buckets(PUBLISHES, times), *of_all])
        for channel in self.channels:
            if count := channels.count(channel):
                self.in_channel("published", channel, count)

    def not_published(self, error: BaseException) -> None:
        """An event was refused, or the log could not be written."""
        if self.at_once and not self._process:
            self.begin()
        self.add("failed" if isinstance(error, BrokerUnavailable) else "refused")

    def totals(self) -> tuple[Mapping[str, int], Mapping[int, Mapping[str, int]]]:
        """Return the sums over all processes, ended ones included, and each living one's by pid.

        A process that shares nothing itself sees what the others do.
        """
        if self.path is not None and not self._process:
            found = details_of(self.path, COUNTERS, GAUGES)
            return found or (dict.fromkeys((*COUNTERS, *GAUGES), 0), {})
        return self._numbers.details()

    def own(self) -> Mapping[str, int]:
        """Return the numbers of this process."""
        return self._numbers.own()

    def of_channels(self) -> Mapping[str, Mapping[str, int]]:
        """Return the sums over all processes of each of `channels`."""
        if self._of_channels is None:
            return {}
        totals, _ = self._of_channels.totals()
        return {
            channel: {name: totals[_of_channel(name, channel)] for name in OF_A_CHANNEL}
            for channel in sorted(self.channels)
        }


class Uncounted(Counts):
    """The numbers of streams that belong to no hub: nobody could ask for them."""

    def opened(self) -> None:
        pass

    def ended(self, reason: str) -> None:
        pass

    def rejected(self, reason: str) -> None:
        pass

    def delivered(self, events: int, size: int) -> None:
        pass


def _buckets(names: Sequence[str], times: Sequence[float]) -> Iterable[tuple[str, int]]:
    """Yield how many of some seconds each bucket of a histogram has."""
    ordered = sorted(times)
    counted = 0
    for name, bound in zip(names, (*BOUNDS, inf), strict=True):
        below = bisect_right(ordered, bound)
        if below > counted:
            yield name, below - counted
            counted = below
            if counted == len(ordered):
                return


def _of_channel(name: str, channel: str) -> str:
    return f"{name} {channel}"


def _names_of(channels: Iterable[str]) -> list[str]:
    return [_of_channel(name, channel) for channel in sorted(channels) for name in OF_A_CHANNEL]


def _path_of(path: Path | None, names: Sequence[str]) -> Path | None:
    """Return the file for numbers of channels: beside the hub's own, another one for each list."""
    if path is None:
        return None
    mark = zlib.crc32("\n".join(names).encode())
    return path.with_name(f"{path.name.removesuffix(SUFFIX)}-channels-{mark:08x}{SUFFIX}")
