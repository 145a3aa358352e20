"""What a process's deliveries came to, counted some at a time.

After a thousand sends nothing that counting needs is in the processor's caches, and a few additions
take as long as several sends.  So while the fan-out has viewers, plain numbers are kept here, and
its timer has them counted a few times a second.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Sequence

from ssekit.brokers import Entry
from ssekit.host.counting import Counts
from ssekit.hub.recent import RecentEntries


class Tally:
    """What one follower has read and the fan-out has sent since that was last counted."""

    def __init__(self, counts: Counts, recent: RecentEntries) -> None:
        self.counts = counts
        self.later = False
        """Whether somebody calls `settle` before long."""
        self.events = 0
        self.bytes = 0
        self.by_channel: Counter[str] = Counter()
        """Events sent in the channels that are counted one by one."""
        self.published: deque[tuple[str, float]] = deque()
        """The channels of events that were published, and how long that took; by any thread."""
        self._recent = recent
        self._taken: list[tuple[float, Sequence[Entry]]] = []

    def took(self, entries: Sequence[Entry]) -> None:
        """These entries have been read, and sent to those who are caught up."""
        self._taken.append((time.time(), entries))
        if not self.later:
            self.settle()

    def settle(self) -> None:
        """Count what there is to count; called in the event loop's thread."""
        if self._taken:
            taken, self._taken = self._taken, []
            self.counts.sent([at - entry.time for at, entries in taken for entry in entries])
            self.note_position()
        if self.published:
            some = [self.published.popleft() for _ in range(len(self.published))]
            self.counts.published_each(*zip(*some, strict=True))
        if self.events or self.bytes:
            events, size, self.events, self.bytes = self.events, self.bytes, 0, 0
            self.counts.delivered(events, size)
        if self.by_channel:
            by_channel, self.by_channel = self.by_channel, Counter()
            for channel, amount in by_channel.items():
                self.counts.in_channel("events", channel, amount)

    def note_position(self) -> None:
        """Let other processes see how far this one has read."""
        recent = self._recent
        self.counts.follows(recent.epoch, recent.end, recent.end - recent.start, recent.size)
