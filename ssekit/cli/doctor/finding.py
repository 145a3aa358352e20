"""What the doctor says: one value per finding."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

ADVICE = 40
"""The harm below which a finding is advice."""


@dataclass(frozen=True)
class Finding:
    """Something that hurts the users of a stream.

    ``name`` is stable, for ``--ignore`` and for programs.  ``harm`` is from 0 to 100: above 80
    the stream does not work for anybody, below `ADVICE` it works and could be better.  ``seen`` is
    what was seen, ``why`` why it matters, ``change`` what to change.  ``hop`` is the program whose
    configuration has to change, "" if that is unknown.
    """

    name: str
    harm: int
    seen: str
    why: str
    change: str
    hop: str = ""

    @property
    def is_advice(self) -> bool:
        """Whether the stream works as it is."""
        return self.harm < ADVICE


def hurts(findings: Iterable[Finding]) -> bool:
    """Tell whether any of the findings is more than advice."""
    return any(not finding.is_advice for finding in findings)
