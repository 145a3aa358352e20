"""What the doctor says: one value per finding."""

from __future__ import annotations

from dataclasses import dataclass

ADVICE = 40
"""The harm below which a finding is advice."""


@dataclass(frozen=True)
class Finding:
    """Something that hurts the users of a stream.

    ``name`` is stable, for ``--ignore`` and for programs.  ``harm`` is from 0 to 100: above 80
    nobody gets the stream as it is meant, below `ADVICE` it is advice.  ``seen`` is what was seen,
    ``why`` why it matters, ``change`` the line to change.  ``hop`` is the program that is to be
    changed, "" where that could not be told.
    """

    name: str
    harm: int
    seen: str
    why: str
    change: str
    hop: str = ""
