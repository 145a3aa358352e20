"""The log of a ``sqlite:`` broker in SQL: each function is the work of one transaction.

`ssekit.brokers.sqlite` calls these with a connection and a transaction begun, and knows processes
and locks; this module knows the tables of `ssekit.brokers.sqlite.file` and the rules of the broker
contract, and neither waits nor begins, commits or tries again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection

from ssekit.brokers.codec import id_of, parse_id, seq_in, unpack
from ssekit.brokers.contract import (
    BATCH,
    CHANNELS_REMEMBERED,
    EPOCHS_REMEMBERED,
    Entry,
    HistoryLost,
)
from ssekit.brokers.sqlite.file import boot_of_machine, now

_SCAN = 5000  # entries that one read looks at, so that it stays short in a long log
_TIDY = 500  # appends after which one tidies up


def append(db: sqlite3.Connection, channel: str, packed: str, history: int) -> str:
    """Append an event, trim the log to ``history`` events, and return the new id."""
    epoch, seq = _epoch(db), _tip(db) + 1
    boot = boot_of_machine()
    if db.execute("SELECT boot FROM log").fetchone() != (boot,):
        epoch = _begin_epoch(db, boot, epoch, seq - 1)
    db.execute("INSERT INTO entry VALUES (?, ?, ?, ?)", (seq, epoch, channel, packed))
    gone = seq - history
    db.execute(
        "INSERT INTO trimmed SELECT channel, max(seq) FROM entry WHERE seq <= ?"
        " GROUP BY channel ON CONFLICT (channel) DO UPDATE SET seq = excluded.seq",
        (gone,),
    )
    db.execute("DELETE FROM entry WHERE seq <= ?", (gone,))
    if seq % _TIDY == 0:
        _tidy(db)
    return id_of(epoch, seq)


def read(
    db: sqlite3.Connection, channels: Collection[str], after: str, limit: int
) -> tuple[list[Entry], str]:
    """Return entries of some channels behind a cursor, and the cursor behind what was looked at."""
    tip = _tip(db)
    seq = _seq_in(db, after, tip)
    names = json.dumps(list(channels))
    if _trimmed(db, names) > seq:
        raise HistoryLost(f"the log was trimmed behind {after}")
    (first,) = db.execute("SELECT ifnull(min(seq), 1) FROM entry").fetchone()
    end = min(tip, max(seq, first - 1) + _SCAN)
    rows = db.execute(
        "SELECT channel, epoch || '-' || seq, packed FROM entry WHERE seq > ? AND seq <= ?"
        " AND channel IN (SELECT value FROM json_each(?)) ORDER BY seq LIMIT ?",
        (seq, end, names, limit),
    )
    entries = [unpack(*row) for row in rows]
    return entries, entries[-1].id if len(entries) == limit else _id_at(db, end)


def newer(db: sqlite3.Connection, after: str) -> list[Entry]:
    """Return the next entries of all channels behind a cursor."""
    seq = _seq_in(db, after, _tip(db))
    rows = db.execute(
        "SELECT channel, epoch || '-' || seq, packed FROM entry WHERE seq > ? ORDER BY seq LIMIT ?",
        (seq, BATCH),
    )
    entries = [unpack(*row) for row in rows]
    if entries and parse_id(entries[0].id)[1] != seq + 1:
        raise HistoryLost(f"the log was trimmed behind {after}")
    return entries


def tip(db: sqlite3.Connection) -> str:
    """Return the cursor at the log's end."""
    return id_of(_epoch(db), _tip(db))


def _epoch(db: sqlite3.Connection) -> int:
    epoch: int
    (epoch,) = db.execute("SELECT epoch FROM log").fetchone()
    return epoch


def _begin_epoch(db: sqlite3.Connection, boot: str, before: int, last: int) -> int:
    """Begin an epoch after one whose last seq is ``last``, and remember that one."""
    epoch = max(now(), before + 1)
    db.execute("INSERT INTO past VALUES (?, ?)", (before, last))
    db.execute(
        "DELETE FROM past WHERE epoch NOT IN (SELECT epoch FROM past ORDER BY epoch DESC LIMIT ?)",
        (EPOCHS_REMEMBERED,),
    )
    db.execute("UPDATE log SET epoch = ?, boot = ?", (epoch, boot))
    return epoch


def _tip(db: sqlite3.Connection) -> int:
    seq: int
    (seq,) = db.execute("SELECT ifnull(max(seq), 0) FROM entry").fetchone()
    return seq


def _seq_in(db: sqlite3.Connection, cursor: str, tip: int) -> int:
    here = _epoch(db)
    epoch, _ = parse_id(cursor)
    past = {} if epoch == here else dict(db.execute("SELECT epoch, last FROM past"))
    return seq_in(cursor, here, tip, past)


def _id_at(db: sqlite3.Connection, seq: int) -> str:
    """Return the id of the entry with this seq, or the cursor of a log that has none yet."""
    found = db.execute("SELECT epoch FROM entry WHERE seq = ?", (seq,)).fetchone()
    return id_of(found[0] if found else _epoch(db), seq)


def _trimmed(db: sqlite3.Connection, names: str) -> int:
    """Return the highest seq up to which one of the channels was trimmed."""
    seq: int
    (seq,) = db.execute(
        "SELECT ifnull(max(ifnull(trimmed.seq, log.floor)), 0) FROM log, json_each(?) AS named"
        " LEFT JOIN trimmed ON trimmed.channel = named.value",
        (names,),
    ).fetchone()
    return seq


def _tidy(db: sqlite3.Connection) -> None:
    """Forget channels that were trimmed long ago, and give back room after large events."""
    (channels,) = db.execute("SELECT count(*) FROM trimmed").fetchone()
    if channels > CHANNELS_REMEMBERED:
        # Half of them, so that the sorting is rare.
        (floor,) = db.execute(
            "SELECT seq FROM trimmed ORDER BY seq DESC LIMIT 1 OFFSET ?",
            (CHANNELS_REMEMBERED // 2,),
        ).fetchone()
        db.execute("DELETE FROM trimmed WHERE seq <= ?", (floor,))
        db.execute("UPDATE log SET floor = ?", (floor,))
    (free,) = db.execute("PRAGMA freelist_count").fetchone()
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    if free > 256 and free > pages // 2:
        for _ in range(min(free, 1000)):
            db.execute("PRAGMA incremental_vacuum(1)")  # a page for each execute()
