"""The epochs of a ``sqlite:`` log: a new one begins with each run of the machine that appends.

A power cut may take the newest entries, and the death of a process does not.
"""

from __future__ import annotations

import sqlite3
import time
from functools import cache
from pathlib import Path

from ssekit.brokers import contract
from ssekit.brokers.sqlite.rows import Log


def now() -> int:
    """Return the time as an epoch."""
    return time.time_ns() // 1_000_000


@cache
def boot_of_machine() -> str:
    """Return what names this run of the machine, where the system says it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""  # a power cut may then go unnoticed


def begin(db: sqlite3.Connection, log: Log) -> None:
    """Begin an epoch, and remember the one before and its last seq."""
    db.execute("INSERT INTO past VALUES (?, ?)", (log.epoch, log.tip))
    db.execute(
        "DELETE FROM past WHERE epoch NOT IN (SELECT epoch FROM past ORDER BY epoch DESC LIMIT ?)",
        (contract.EPOCHS_REMEMBERED,),
    )
    log.epoch, log.boot = max(now(), log.epoch + 1), boot_of_machine()
