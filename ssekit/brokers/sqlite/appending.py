"""The ordinary append: one INSERT, and the accounts are settled later.

What that needs to know (where the log ends, that the channel is not finished, up to which seq no
bound can be reached) is remembered by the connection as long as no other one has written, which
SQLite tells.  Without a key the INSERT is a transaction by itself: if another process writes just
before it, either the seq is taken and the INSERT fails, or it was nothing that matters to it.

Everything else is left to a `ssekit.brokers.sqlite.writing.Writer`: an end that has to be looked
at, a key that is new, a bound that is reached, an epoch that begins.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass, field

from ssekit.brokers import contract
from ssekit.brokers.codec import id_of
from ssekit.brokers.contract import Entry
from ssekit.brokers.sqlite import epochs
from ssekit.brokers.sqlite.accounts import withdraw
from ssekit.brokers.sqlite.rows import EVENT, PASSED, VALUE, Log

_UNSETTLED = 64  # entries at most that are not in the accounts yet

_INSERT = (
    "INSERT INTO entry (seq, epoch, channel, passing, kept, time, body)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_INSERT_OF_KEY = (
    "INSERT INTO entry (seq, epoch, channel, passing, kept, time, body, key)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)


@dataclass
class Known:
    """What a connection knows of its log between two transactions."""

    version: int  # what SQLite calls the data, which other connections' commits change
    log: Log
    upto: int  # the last seq that can be given before the log's accounts are looked at
    channels: dict[str, tuple[str | None, int]] = field(default_factory=dict)
    """The producers of channels that are not finished, and the last seq that can be given."""

    @classmethod
    def load(cls, db: sqlite3.Connection, version: int) -> Known:
        log = Log.load(db)
        room = log.retention.room - log.counted
        return cls(version, log, log.settled + min(_UNSETTLED, room))


def append_alone(
    db: sqlite3.Connection,
    known: Known,
    name: str,
    body: bytes,
    *,
    passing: bool,
    holder: str | None,
) -> Entry | None:
    """Append an entry without a key by an INSERT that is a transaction by itself.

    None, and nothing done, if it is no ordinary one.  Raises `sqlite3.IntegrityError` if another
    connection has appended since what is known was compared: the seq is no longer free.
    """
    if known.version != _version(db):
        return None
    return _append(db, known, name, body, key=None, passing=passing, holder=holder)


def append(
    db: sqlite3.Connection,
    known: Known | None,
    name: str,
    body: bytes,
    *,
    key: str | None,
    passing: bool,
    holder: str | None,
) -> tuple[Known, Entry | None]:
    """Append an entry in a transaction; None instead, and nothing done, if it is no ordinary one.

    ``known`` is what was known before the transaction; with the entry comes what is known now.
    """
    version = _version(db)
    if known is None or known.version != version:
        known = Known.load(db, version)
    return known, _append(db, known, name, body, key=key, passing=passing, holder=holder)


def _version(db: sqlite3.Connection) -> int:
    found: tuple[int] = db.execute("PRAGMA data_version").fetchone()
    return found[0]


def _append(
    db: sqlite3.Connection,
    known: Known,
    name: str,
    body: bytes,
    *,
    key: str | None,
    passing: bool,
    holder: str | None,
) -> Entry | None:
    log = known.log
    if log.tip >= known.upto or log.boot != epochs.boot_of_machine():
        return None
    channel = known.channels.get(name) or _look_at(db, known, name)
    if channel is None:
        return None
    producer, upto = channel
    if log.tip >= upto or (holder is not None and holder != producer):
        return None
    kept = PASSED if passing else EVENT
    if key is not None:
        superseded = value(db, name, key)
        if superseded is None:
            return None
        withdraw(db, superseded[0], log.tip)
        kept = VALUE
    return insert(db, log, name, body, key=key, kept=kept, passing=passing)


def value(db: sqlite3.Connection, name: str, key: str) -> tuple[int, bytes] | None:
    """Return the seq and the body of a key's newest entry."""
    found: tuple[int, bytes] | None = db.execute(
        "SELECT seq, body FROM entry WHERE channel = ? AND key = ? AND kept = 2", (name, key)
    ).fetchone()
    return found


def insert(
    db: sqlite3.Connection,
    log: Log,
    name: str,
    body: bytes,
    *,
    key: str | None,
    kept: int,
    passing: bool = False,
) -> Entry:
    """Store an entry at the log's end."""
    log.tip += 1
    log.time = max(log.time, time.time())
    # For each value of another type, such as bytes and None, Python would look for an adapter.
    values = (log.tip, log.epoch, name, int(passing), kept, log.time, bytearray(body))
    if key is None:
        db.execute(_INSERT, values)
    else:
        db.execute(_INSERT_OF_KEY, (*values, key))
    return Entry(id_of(log.epoch, log.tip), name, body, key, passing, log.time)


def _look_at(db: sqlite3.Connection, known: Known, name: str) -> tuple[str | None, int] | None:
    """Return, and remember, what is known of a channel; None if it is finished."""
    row = db.execute(
        "SELECT end, producer, produced, events FROM channel WHERE name = ?", (name,)
    ).fetchone()
    end, producer, produced, events = row or (None, None, 0, 0)
    if end is not None:
        return None
    # A channel is trimmed by the event that gives it twice its history.
    most = contract.MOST_PRODUCED if produced else 2 * known.log.history - 1
    found = known.channels[name] = producer, known.log.settled + most - events
    return found
