"""When an application of the bench publishes what: the query of its ``/publish``.

All applications follow the same schedule, and make their events as ``loop.c`` does, so that only
their ways to deliver differ.  It knows no server and does not sleep: a caller sleeps its own way.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from urllib.parse import parse_qs


class Schedule:
    """``count`` events, ``rate`` a second (0: as fast as it goes), in turns of ``burst`` events.

    ``first`` is the first one's sequence.
    """

    def __init__(self, query: str) -> None:
        fields = {name: values[-1] for name, values in parse_qs(query).items()}
        self.count = int(fields.get("count", 1))
        self.rate = float(fields.get("rate", 0))
        self.burst = int(fields.get("burst", 1))
        self.size = int(fields.get("size", 80))
        self.channel = fields.get("channel", "bench")
        self.first = int(fields.get("first", 1))

    def turns(self) -> Iterator[tuple[float, range]]:
        """Yield for each turn the seconds to wait before it, and the sequences of its events."""
        began = time.monotonic()
        for start in range(0, self.count, self.burst):
            due = began + start / self.rate if self.rate else 0.0
            wait = max(0.0, due - time.monotonic())
            last = min(start + self.burst, self.count)
            yield wait, range(self.first + start, self.first + last)

    def data(self, sequence: int) -> str:
        """Return the data of an event that is published now."""
        return f"@{sequence},{time.monotonic_ns()},".ljust(self.size, "x")
