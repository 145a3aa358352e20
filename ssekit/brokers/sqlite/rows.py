"""The rows that say how a ``sqlite:`` log stands: one of the log, and one of each channel.

An ordinary append stores its entry and leaves them as they are.  So they hold for the entries up to
the log's ``settled``; what has come since, a bounded number, is counted by whoever needs it
(`unsettled`).  The tables are those of `ssekit.brokers.sqlite.file`.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ssekit.brokers import contract
from ssekit.brokers.codec import id_of, parse_id, seq_in
from ssekit.brokers.contract import INTERNAL, Entry, Retention

# What `entry.kept` says: why an entry is kept, other than for those who follow.
PASSED = 0  # a passing, superseded, trimmed or withdrawn entry
EVENT = 1  # an event without a key, or a removal
VALUE = 2  # the newest entry of a key
END = 3  # the end of a channel

SELECT = "SELECT epoch, seq, channel, body, key, passing, time FROM entry "

Row = tuple[int, int, str, bytes, str | None, int, float]
"""What `SELECT` gives."""


def entry_of(row: Row) -> Entry:
    epoch, seq, channel, body, key, passing, at = row
    return Entry(id_of(epoch, seq), channel, body, key, bool(passing), at)


@dataclass
class Log:
    epoch: int
    boot: str  # the run of the machine in which the epoch began
    settled: int  # the seq up to which the rows hold
    counted: int  # events of all channels that count towards the capacity
    bare: int  # channels of which nothing but `trimmed` is known
    floor: int  # up to where channels that are not known may have been trimmed
    turn: str  # the channel that was tidied last
    history: int
    capacity: int
    max_keys: int
    max_age: float | None
    tip: int  # the seq of the newest entry, which is always there
    time: float  # its time

    @classmethod
    def load(cls, db: sqlite3.Connection) -> Log:
        row = db.execute(
            "SELECT log.*, coalesce(entry.seq, 0), coalesce(entry.time, 0.0)"
            " FROM log LEFT JOIN entry ON entry.seq = (SELECT max(seq) FROM entry)"
        ).fetchone()
        if row is None:
            raise sqlite3.DatabaseError("it has lost the row of the log")
        return cls(*row)

    @property
    def row(self) -> tuple[Any, ...]:
        """What the log's own row has."""
        return tuple(vars(self).values())[:-2]

    def save(self, db: sqlite3.Connection) -> None:
        db.execute(
            "UPDATE log SET (epoch, boot, settled, counted, bare, floor, turn, history, capacity,"
            " max_keys, max_age) = (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            self.row,
        )

    @property
    def retention(self) -> Retention:
        return Retention(self.history, self.capacity, self.max_keys, self.max_age)

    @property
    def cursor(self) -> str:
        """The cursor at the log's end."""
        return id_of(self.epoch, self.tip)

    @property
    def expired(self) -> float:
        """What is older than this time has expired."""
        return 0.0 if self.max_age is None else max(self.time, time.time()) - self.max_age

    @property
    def internal_expired(self) -> float:
        """A removal in an internal channel that is older than this time has expired."""
        return max(self.time, time.time()) - contract.INTERNAL_KEPT

    @property
    def end_forgotten(self) -> float:
        """The end of a channel without events is forgotten if it is older than this time."""
        return max(self.time, time.time()) - (self.max_age or 0) - contract.END_REMEMBERED

    def seq_in(self, db: sqlite3.Connection, cursor: str) -> int:
        """Return the seq of a cursor; raises `HistoryLost`."""
        here = parse_id(cursor)[0] == self.epoch
        past = {} if here else dict(db.execute("SELECT epoch, last FROM past"))
        return seq_in(cursor, self.epoch, self.tip, past)


@dataclass
class Channel:
    name: str
    trimmed: int = 0  # up to this seq
    last: int = 0  # the seq of the newest entry that is kept, or was
    events: int = 0  # that are kept, removals included
    keys: int = 0
    end: int | None = None  # its seq
    ended: float = 0.0  # the time of the end
    reason: str | None = None
    producer: str | None = None
    produced: int = 0  # also when its producer has finished, until it is reopened

    @property
    def counted(self) -> int:
        """Its events that count towards the capacity."""
        return 0 if self.producer is not None or self.internal else self.events

    @property
    def internal(self) -> bool:
        """Whether it is one of the hub's own."""
        return self.name.startswith(INTERNAL)

    @property
    def bare(self) -> bool:
        """Whether nothing is known of it but up to where it was trimmed."""
        return not (self.events or self.keys or self.end or self.producer)

    @classmethod
    def load(cls, db: sqlite3.Connection, name: str) -> Channel | None:
        row = db.execute(_CHANNEL + "WHERE name = ?", (name,)).fetchone()
        return None if row is None else cls(*row)

    @classmethod
    def load_some(cls, db: sqlite3.Connection, after: str, many: int) -> list[Channel]:
        """Return the next channels after a name, in the order of names."""
        rows = db.execute(_CHANNEL + "WHERE name > ? ORDER BY name LIMIT ?", (after, many))
        return [cls(*row) for row in rows]

    def save(self, db: sqlite3.Connection) -> None:
        db.execute(
            "INSERT INTO channel VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name)"
            " DO UPDATE SET trimmed = excluded.trimmed, last = excluded.last,"
            " events = excluded.events, keys = excluded.keys, end = excluded.end,"
            " ended = excluded.ended, reason = excluded.reason, producer = excluded.producer,"
            " produced = excluded.produced, length = excluded.length, bare = excluded.bare",
            (*vars(self).values(), 0 if self.produced else self.counted, self.bare),
        )


_CHANNEL = (
    "SELECT name, trimmed, last, events, keys, end, ended, reason, producer, produced FROM channel "
)


def unsettled(db: sqlite3.Connection, log: Log) -> Iterator[tuple[str, int, int]]:
    """Yield each channel that entries were appended to since, how many events, and the last seq."""
    if log.tip > log.settled:
        # By seq, not by the index of channels, which would be read as a whole.
        yield from db.execute(
            "SELECT channel, sum(kept = ?), max(seq) FROM entry NOT INDEXED"
            " WHERE seq > ? AND kept IN (?, ?) GROUP BY channel",
            (EVENT, log.settled, EVENT, VALUE),
        )
