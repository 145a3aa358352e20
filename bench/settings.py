"""What a run of the bench is told: how much, how long, and on which cores.

Every bench takes its sizes from here, so that ``--quick`` shrinks all of them in one place.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field


def _cores() -> tuple[int, int]:
    cores = sorted(os.sched_getaffinity(0))
    return cores[0], cores[-1]


@dataclass(frozen=True)
class Settings:
    """``rounds``: how often each measure is taken; the median counts.
    ``scale``: 1.0 for the sizes that the targets name, less for a quicker look.
    ``only``: names of subjects to measure; empty for all.
    ``cores``: the server's, and the clients'.
    """

    rounds: int = 3
    scale: float = 1.0
    only: frozenset[str] = frozenset()
    cores: tuple[int, int] = field(default_factory=_cores)

    def scaled(self, number: int, least: int = 1) -> int:
        """Return a size of the full run as this run's."""
        return max(least, round(number * self.scale))

    def wants(self, subject: str) -> bool:
        """Tell whether a subject is to be measured."""
        return not self.only or subject in self.only
