"""What a ``sqlite:`` log is asked, in SQL: each function is the work of one transaction.

Nothing here writes.  What has expired since it was last tidied is left out, and counts as trimmed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from heapq import merge
from itertools import islice

from ssekit.brokers import contract
from ssekit.brokers.contract import Entry, HistoryLost, Opening, Retention, Status, bounded
from ssekit.brokers.sqlite.rows import (
    END,
    EVENT,
    SELECT,
    VALUE,
    Channel,
    Log,
    Row,
    entry_of,
    unsettled,
)


def read(
    db: sqlite3.Connection, names: Collection[str], after: str, limit: int
) -> tuple[list[Entry], str]:
    log = Log.load(db)
    seq = log.seq_in(db, after)
    channels = _channels(db, log, names)
    if not _are_kept(db, log, channels, seq):
        raise HistoryLost(f"events after {after} are no longer kept")
    # Each gives its rows one by one, so that no more of them are in memory than are returned.
    rows = merge(
        *(
            db.execute(
                SELECT + "WHERE channel = ? AND kept = ? AND seq > ? ORDER BY seq LIMIT ?",
                (channel.name, kept, seq, limit),
            )
            for channel in channels
            if channel.last > seq
            for kept in _kinds(channel)
        ),
        key=_seq,
    )
    entries = bounded(map(entry_of, islice(rows, limit)))
    is_all = len(entries) < limit and next(rows, None) is None
    return entries, log.cursor if is_all else entries[-1].id


def _kinds(channel: Channel) -> Iterator[int]:
    """Yield why entries of a channel may be kept: asking for one kind costs a statement."""
    yield EVENT
    if channel.keys:
        yield VALUE
    if channel.end is not None:
        yield END


def newer(db: sqlite3.Connection, after: str) -> list[Entry]:
    """Return the next entries of all channels and kinds after a cursor."""
    log = Log.load(db)
    seq = log.seq_in(db, after)
    if log.tip - seq > contract.RECENT:
        raise HistoryLost(f"more than {contract.RECENT} entries have followed {after}")
    return bounded(map(entry_of, _rows(db, seq, contract.BATCH)))


def recent(db: sqlite3.Connection, limit: int) -> tuple[list[Entry], str]:
    log = Log.load(db)
    rows = _rows(db, log.tip - min(limit, contract.RECENT), limit)
    return list(map(entry_of, rows)), log.cursor


def opening(db: sqlite3.Connection, names: Collection[str], replay: int | None) -> Opening:
    log = Log.load(db)
    channels = _channels(db, log, names)
    values: list[Row] = []
    for channel in channels:
        if channel.keys:
            values += db.execute(
                SELECT + "WHERE channel = ? AND kept = ? ORDER BY seq", (channel.name, VALUE)
            )
    values.sort(key=_seq)
    return Opening(
        state=[entry_of(row) for row in values],
        history=_last(db, log, channels, log.tip + 1, replay),
        complete=_are_kept(db, log, channels, 0),
        ends=_ends(db, channels),
        tip=log.cursor,
    )


def history(
    db: sqlite3.Connection, names: Collection[str], limit: int, before: str | None
) -> list[Entry]:
    log = Log.load(db)
    end = log.tip + 1 if before is None else log.seq_in(db, before)
    return _last(db, log, _channels(db, log, names), end, limit)


def ends(db: sqlite3.Connection, names: Collection[str]) -> dict[str, Entry]:
    return _ends(db, _channels(db, Log.load(db), names))


def status(db: sqlite3.Connection, name: str) -> Status:
    (channel,) = _channels(db, Log.load(db), [name])
    if channel.end is not None:
        return Status("finished", channel.reason)
    return Status("open" if channel.producer is None else "producing")


def tip(db: sqlite3.Connection) -> str:
    return Log.load(db).cursor


def retention(db: sqlite3.Connection) -> Retention:
    return Log.load(db).retention


def end_is_forgotten(db: sqlite3.Connection, log: Log, channel: Channel) -> bool:
    """Whether a channel is finished, and its end is too old to be remembered."""
    if channel.end is None or channel.ended >= log.end_forgotten:
        return False
    newest = db.execute(
        "SELECT time FROM entry WHERE channel = ? AND kept = ? ORDER BY seq DESC LIMIT 1",
        (channel.name, EVENT),
    ).fetchone()
    return newest is None or newest[0] < log.expired


def _seq(row: Row) -> int:
    return row[1]


def _rows(db: sqlite3.Connection, after: int, limit: int) -> Iterator[Row]:
    return db.execute(SELECT + "WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit))


def _channels(db: sqlite3.Connection, log: Log, names: Collection[str]) -> list[Channel]:
    """Return the channels, known or not, as they stand, without ends that are forgotten."""
    found = []
    appended = {name: (events, last) for name, events, last in unsettled(db, log)}
    for name in set(names):
        channel = Channel.load(db, name) or Channel(name, trimmed=log.floor)
        if name in appended:
            events, channel.last = appended[name]
            channel.events += events
        if end_is_forgotten(db, log, channel):
            channel.end = channel.reason = None
        found.append(channel)
    return found


def _are_kept(db: sqlite3.Connection, log: Log, channels: list[Channel], seq: int) -> bool:
    """Whether no event or removal of the channels after a seq was trimmed or has expired."""
    for channel in channels:
        if channel.trimmed > seq:
            return False
        if log.max_age is not None and channel.events and not channel.internal:
            first = db.execute(
                "SELECT time FROM entry WHERE channel = ? AND kept = ? AND seq > ?"
                " ORDER BY seq LIMIT 1",
                (channel.name, EVENT, seq),
            ).fetchone()
            if first is not None and first[0] < log.expired:
                return False
    return True


def _last(
    db: sqlite3.Connection, log: Log, channels: list[Channel], before: int, limit: int | None
) -> list[Entry]:
    """Return the last events without a key before a seq, oldest first."""
    rows: list[Row] = []
    for channel in channels:
        if channel.events:
            rows += db.execute(
                SELECT + "WHERE channel = ? AND kept = ? AND seq < ? AND key IS NULL"
                " AND time >= ? ORDER BY seq DESC LIMIT ?",
                (channel.name, EVENT, before, log.expired, -1 if limit is None else limit),
            )
    rows.sort(key=_seq, reverse=True)
    return [entry_of(row) for row in reversed(rows if limit is None else rows[:limit])]


def _ends(db: sqlite3.Connection, channels: list[Channel]) -> dict[str, Entry]:
    return {
        channel.name: entry_of(db.execute(SELECT + "WHERE seq = ?", (channel.end,)).fetchone())
        for channel in channels
        if channel.end is not None
    }
