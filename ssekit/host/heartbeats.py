"""One sweep for the heartbeats of everything that sends: single clients and whole groups."""

from __future__ import annotations

import math
from typing import Protocol

SWEEPS = 20
"""In one heartbeat, so that it comes at most a twentieth late.

More would cost: with a channel for each user there are as many groups as viewers.
"""


class Sender(Protocol):
    """What sends to one client, or to several at once."""

    heartbeat: float
    """Seconds without a byte after which a heartbeat is due."""
    wrote_at: float
    """When it sent last, on the monotonic clock."""

    def beat(self) -> None:
        """Send a heartbeat, which is due."""


class Heartbeats:
    """The senders whose heartbeats are looked after."""

    def __init__(self) -> None:
        self._senders: dict[Sender, None] = {}  # as a set, in half the memory
        self._shortest = math.inf  # of the heartbeats
        self._sweep_at = 0.0

    def add(self, sender: Sender) -> None:
        """Look after its heartbeats from now on."""
        self._senders[sender] = None
        if sender.heartbeat < self._shortest:
            self._shortest, self._sweep_at = sender.heartbeat, 0.0

    def discard(self, sender: Sender) -> None:
        """Look after it no more."""
        self._senders.pop(sender, None)
        if not self._senders:
            self._shortest = math.inf

    def sweep(self, now: float) -> None:
        """Let those beat whose heartbeat is due; to be called often."""
        if now < self._sweep_at:
            return
        self._sweep_at = now + self._shortest / SWEEPS
        due = [sender for sender in self._senders if now - sender.wrote_at >= sender.heartbeat]
        for sender in due:
            if sender in self._senders:
                sender.beat()
