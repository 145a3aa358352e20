"""Leases that run out sooner, so that a test of a process that dies need not wait as users do."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ssekit.hub import lease

if TYPE_CHECKING:
    import pytest

FACTOR = 3
_TIMES = ("BEAT", "TERM", "LOOK")
_VARIABLE = "SSEKIT_TESTS_QUICK_LEASES"


def quicken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Divide the times of leases, in this process and in the programs that it starts."""
    for name in _TIMES:
        monkeypatch.setattr(lease, name, getattr(lease, name) / FACTOR)
    monkeypatch.setenv(_VARIABLE, "1")


def obey() -> None:
    """Called by a program of the tests that has leases: take the times that the test wants."""
    if os.environ.get(_VARIABLE):
        for name in _TIMES:
            setattr(lease, name, getattr(lease, name) / FACTOR)
