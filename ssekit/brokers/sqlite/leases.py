"""The leases of a ``sqlite:`` log, in SQL: who has one, and what each holds."""

from __future__ import annotations

import sqlite3

from ssekit.brokers.contract import Held, LeaseEnded

_ENDED = -1


def beat(db: sqlite3.Connection, holder: str, first: bool) -> bool:
    beats = _beats(db, holder)
    if beats == _ENDED or (beats is None and not first):
        return False
    db.execute(
        "INSERT INTO lease VALUES (?, 1) ON CONFLICT (holder) DO UPDATE SET beats = beats + 1",
        (holder,),
    )
    return True


def all_leases(db: sqlite3.Connection) -> dict[str, int]:
    return dict(db.execute("SELECT holder, beats FROM lease"))


def end(db: sqlite3.Connection, holder: str, beats: int) -> bool:
    if _beats(db, holder) not in (beats, _ENDED, None):
        return False
    db.execute("UPDATE lease SET beats = ? WHERE holder = ?", (_ENDED, holder))
    _forget(db, holder)
    return True


def held(db: sqlite3.Connection, holder: str) -> list[Held]:
    rows = db.execute("SELECT channel, member FROM held WHERE holder = ?", (holder,))
    return [Held(*row) for row in rows]


def check(db: sqlite3.Connection, holder: str) -> None:
    """Raise `LeaseEnded` unless the holder has a lease."""
    if _beats(db, holder) in (None, _ENDED):
        raise LeaseEnded(f"the lease {holder} was ended")


def hold(db: sqlite3.Connection, holder: str, what: Held) -> None:
    if not _holds(db, holder, what):
        db.execute("INSERT INTO held VALUES (?, ?, ?)", (holder, *what))


def is_held(db: sqlite3.Connection, what: Held) -> bool:
    """Whether anybody holds it."""
    row = db.execute("SELECT 1 FROM held WHERE channel = ? AND member IS ?", tuple(what))
    return row.fetchone() is not None


def release(db: sqlite3.Connection, holder: str, what: Held) -> bool:
    """Have the holder hold it no longer; false if it did not."""
    if not _holds(db, holder, what):
        return False
    db.execute("DELETE FROM held WHERE channel = ? AND member IS ? AND holder = ?", (*what, holder))
    _forget(db, holder)
    return True


def _holds(db: sqlite3.Connection, holder: str, what: Held) -> bool:
    row = db.execute(
        "SELECT 1 FROM held WHERE channel = ? AND member IS ? AND holder = ?", (*what, holder)
    )
    return row.fetchone() is not None


def _beats(db: sqlite3.Connection, holder: str) -> int | None:
    row = db.execute("SELECT beats FROM lease WHERE holder = ?", (holder,)).fetchone()
    return None if row is None else row[0]


def _forget(db: sqlite3.Connection, holder: str) -> None:
    """Forget a lease that was ended and holds nothing."""
    db.execute(
        "DELETE FROM lease WHERE holder = ? AND beats = ?"
        " AND NOT EXISTS (SELECT 1 FROM held WHERE held.holder = lease.holder)",
        (holder, _ENDED),
    )
