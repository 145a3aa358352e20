"""What changes a ``sqlite:`` log, in SQL: a `Writer` is the work of one transaction.

An append costs the same however long the log is and however many channels it has.  It looks at its
own channel, at the longest one if the log is full, at the one entry that is no longer among the
newest `RECENT`, and tidies one more channel in turn.  A channel is trimmed at twice its history, so
that each event is deleted once and not looked at before.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from dataclasses import replace

from ssekit.brokers import contract
from ssekit.brokers.codec import id_of
from ssekit.brokers.contract import Entry, Held, Retention
from ssekit.brokers.sqlite import leases
from ssekit.brokers.sqlite.file import boot_of_machine, now
from ssekit.brokers.sqlite.reading import end_is_forgotten
from ssekit.brokers.sqlite.rows import END, EVENT, PASSED, VALUE, Channel, Log
from ssekit.errors import ChannelBusy, ChannelFinished, InvalidEvent

_GIVEN_UP = 1000  # events or channels that one entry makes others give up at most
_TIDY = 500  # entries after which room is given back to the file system


class Writer:
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._log = Log.load(db)
        self._loaded = replace(self._log)
        self._stored = 0
        self._before: dict[str, tuple[int, bool]] = {}  # `counted` and `bare` of loaded channels

    def done(self) -> None:
        """Do what is left to do at the end of the transaction."""
        for _ in range(self._stored):
            self._tidy_next()
        if self._log.tip // _TIDY != (self._log.tip - self._stored) // _TIDY:
            _give_back_room(self._db)
        if self._log != self._loaded:
            self._log.save(self._db)

    def append(
        self, name: str, body: bytes, key: str | None, passing: bool, holder: str | None
    ) -> Entry:
        channel = self._unfinished(name)
        if holder is not None and channel.producer != holder:
            raise ChannelFinished(name, None)
        if passing:
            return self._store(name, body, None, PASSED, passing=True)
        if key is None:
            return self._keep(channel, body, None)
        superseded = self._value(name, key)
        if superseded is None:
            self._check_keys(channel)
            channel.keys += 1
        else:
            self._withdraw(superseded[0])
        entry = self._store(name, body, key, VALUE)
        channel.last = self._log.tip
        self._save(channel)
        return entry

    def remove(self, name: str, key: str, body: bytes) -> Entry | None:
        channel = self._unfinished(name)
        value = self._value(name, key)
        if value is None:
            return None
        self._withdraw(value[0])
        channel.keys -= 1
        return self._keep(channel, body, key)

    def finish(self, name: str, body: bytes, reason: str, holder: str | None) -> Entry | None:
        channel = self._channel(name)
        producer = channel.producer
        if channel.end is not None or (holder is not None and producer != holder):
            return None
        entry = self._store(name, body, None, END)
        channel.last = channel.end = self._log.tip
        channel.ended, channel.reason, channel.producer = entry.time, reason, None
        self._save(channel)
        if producer is not None:
            leases.release(self._db, producer, Held(name))
        self._bound()
        return entry

    def reopen(self, name: str) -> bool:
        channel = self._channel(name)
        if channel.end is None:
            return False
        self._withdraw(channel.end)
        channel.end = channel.reason = None
        channel.produced = 0
        self._trim(channel)
        return True

    def produce(self, name: str, holder: str) -> None:
        leases.check(self._db, holder)
        channel = self._unfinished(name)
        if channel.producer is not None:
            raise ChannelBusy(name)
        channel.producer, channel.produced = holder, 1
        self._save(channel)
        leases.hold(self._db, holder, Held(name))

    def join(self, name: str, members: Mapping[str, bytes], holder: str) -> None:
        leases.check(self._db, holder)
        for member, body in members.items():
            held, value = Held(name, member), self._value(name, member)
            if value is None or value[1] != body or not leases.is_held(self._db, held):
                self.append(name, body, member, False, None)
            leases.hold(self._db, holder, held)

    def leave(self, name: str, members: Mapping[str, bytes], holder: str) -> None:
        for member, body in members.items():
            held = Held(name, member)
            if leases.release(self._db, holder, held) and not leases.is_held(self._db, held):
                self.remove(name, member, body)

    def beat(self, holder: str, *, first: bool = False) -> bool:
        return leases.beat(self._db, holder, first)

    def end_lease(self, holder: str, beats: int) -> bool:
        return leases.end(self._db, holder, beats)

    # -- channels

    def _channel(self, name: str) -> Channel:
        """Return the channel, known or new, without what has expired."""
        channel = Channel.load(self._db, name)
        if channel is None:
            self._before[name] = (0, False)
            return Channel(name, trimmed=self._log.floor)
        self._before[name] = (channel.counted, channel.bare)
        changed = self._expire(channel)
        if channel.end is not None and end_is_forgotten(self._db, self._log, channel):
            self._withdraw(channel.end)
            channel.end = channel.reason = None
            channel.produced = 0
            changed = True
        if changed:
            self._save(channel)
        return channel

    def _unfinished(self, name: str) -> Channel:
        channel = self._channel(name)
        if channel.end is not None:
            raise ChannelFinished(name, channel.reason)
        return channel

    def _save(self, channel: Channel) -> None:
        counted, bare = self._before[channel.name]
        self._log.counted += channel.counted - counted
        if channel.bare and channel.trimmed <= self._log.floor:
            self._db.execute("DELETE FROM channel WHERE name = ?", (channel.name,))
            self._log.bare -= bare
            self._before[channel.name] = (0, False)
            return
        channel.save(self._db)
        self._log.bare += channel.bare - bare
        self._before[channel.name] = (channel.counted, channel.bare)
        while self._log.bare > contract.CHANNELS_REMEMBERED:
            name, trimmed = self._db.execute(
                "SELECT name, trimmed FROM channel WHERE bare = 1 ORDER BY trimmed LIMIT 1"
            ).fetchone()
            self._db.execute("DELETE FROM channel WHERE name = ?", (name,))
            self._log.floor = max(self._log.floor, trimmed)
            self._log.bare -= 1

    def _check_keys(self, channel: Channel) -> None:
        most = self._log.max_keys
        if channel.keys >= most and not channel.internal:
            raise InvalidEvent(
                f"the channel {channel.name!r} has {most} keys already: remove some, or let it"
                " have more with Hub(max_keys=...)"
            )

    # -- entries

    def _value(self, name: str, key: str) -> tuple[int, bytes] | None:
        """Return the seq and the body of a key's newest entry."""
        found: tuple[int, bytes] | None = self._db.execute(
            "SELECT seq, body FROM entry WHERE channel = ? AND key = ? AND kept = 2", (name, key)
        ).fetchone()
        return found

    def _store(
        self, name: str, body: bytes, key: str | None, kept: int, *, passing: bool = False
    ) -> Entry:
        log = self._log
        if log.boot != boot_of_machine():
            self._begin_epoch()
        log.tip += 1
        log.time = max(log.time, time.time())
        self._db.execute(
            "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (log.tip, log.epoch, name, key, passing, kept, log.time, body),
        )
        self._db.execute(
            "DELETE FROM entry WHERE seq = ? AND kept = ?", (log.tip - contract.RECENT, PASSED)
        )
        self._stored += 1
        return Entry(id_of(log.epoch, log.tip), name, body, key, passing, log.time)

    def _keep(self, channel: Channel, body: bytes, key: str | None) -> Entry:
        entry = self._store(channel.name, body, key, EVENT)
        channel.last = self._log.tip
        channel.events += 1
        self._trim(channel)
        return entry

    def _withdraw(self, seq: int) -> None:
        """Keep an entry no longer, except for those who follow."""
        if seq > self._log.tip - contract.RECENT:
            self._db.execute("UPDATE entry SET kept = ? WHERE seq = ?", (PASSED, seq))
        else:
            self._db.execute("DELETE FROM entry WHERE seq = ?", (seq,))

    def _begin_epoch(self) -> None:
        """Begin an epoch, and remember the one before and its last seq."""
        log = self._log
        self._db.execute("INSERT INTO past VALUES (?, ?)", (log.epoch, log.tip))
        self._db.execute(
            "DELETE FROM past WHERE epoch NOT IN"
            " (SELECT epoch FROM past ORDER BY epoch DESC LIMIT ?)",
            (contract.EPOCHS_REMEMBERED,),
        )
        log.epoch, log.boot = max(now(), log.epoch + 1), boot_of_machine()

    # -- retention

    def _trim(self, channel: Channel) -> None:
        """Bound the channel, save it, and bound the whole log."""
        history = self._log.history
        if channel.produced:
            self._cut(channel, contract.MOST_PRODUCED)
        elif channel.events >= 2 * history:
            self._cut(channel, history)
        self._save(channel)
        self._bound()

    def _bound(self) -> None:
        room = max(self._log.capacity, self._log.history)
        for _ in range(_GIVEN_UP):
            if self._log.counted <= room:
                return
            found = self._db.execute(
                "SELECT name FROM channel WHERE produced = 1 AND end IS NOT NULL AND events > 0"
                " ORDER BY end LIMIT 1"
            ).fetchone()
            if found is not None:
                channel = self._channel(found[0])
                self._cut(channel, 0)
            else:
                (name,) = self._db.execute(
                    "SELECT name FROM channel WHERE length > 0 ORDER BY length DESC, last LIMIT 1"
                ).fetchone()
                channel = self._channel(name)
                # It may have expired just now.
                self._cut(channel, max(0, min(self._log.history, channel.events - 1)))
            self._save(channel)

    def _cut(self, channel: Channel, keep: int) -> None:
        """Leave only the newest events of a channel."""
        if channel.events > keep:
            (upto,) = self._db.execute(
                "SELECT seq FROM entry WHERE channel = ? AND kept = ? ORDER BY seq"
                " LIMIT 1 OFFSET ?",
                (channel.name, EVENT, channel.events - keep - 1),
            ).fetchone()
            self._cut_to(channel, upto)

    def _cut_to(self, channel: Channel, upto: int) -> None:
        """Keep the events of a channel up to a seq no longer, except for those who follow."""
        followed = min(upto, self._log.tip - contract.RECENT)
        deleted = self._db.execute(
            "DELETE FROM entry WHERE channel = ? AND kept = ? AND seq <= ?",
            (channel.name, EVENT, followed),
        )
        withdrawn = self._db.execute(
            "UPDATE entry SET kept = ? WHERE channel = ? AND kept = ? AND seq <= ?",
            (PASSED, channel.name, EVENT, upto),
        )
        channel.events -= deleted.rowcount + withdrawn.rowcount
        channel.trimmed = upto

    def _expire(self, channel: Channel) -> bool:
        """Forget the events of a channel that are too old; false if there are none."""
        if not channel.events:
            return False
        expired = self._log.expired
        if channel.internal:
            expired = self._log.internal_expired
        elif self._log.max_age is None:
            return False
        last = None
        for seq, at in self._db.execute(
            "SELECT seq, time FROM entry WHERE channel = ? AND kept = ? ORDER BY seq",
            (channel.name, EVENT),
        ):
            if at >= expired:
                break
            last = seq
        if last is None:
            return False
        self._cut_to(channel, last)
        return True

    def _tidy_next(self) -> None:
        """Forget what has expired of one more channel, in turn."""
        found = self._db.execute(
            "SELECT name FROM channel WHERE name > ? ORDER BY name LIMIT 1", (self._log.turn,)
        ).fetchone()
        self._log.turn = "" if found is None else found[0]
        if found is not None:
            self._channel(found[0])


def change_retention(db: sqlite3.Connection, given: Retention) -> None:
    """Write what was given into a log that exists."""
    log = Log.load(db)
    new = log.retention.changed_by(given)
    if new != log.retention:
        log.history, log.capacity = new.history, new.capacity
        log.max_keys, log.max_age = new.max_keys, new.max_age
        log.save(db)


def _give_back_room(db: sqlite3.Connection) -> None:
    """Shorten the file after large events."""
    (free,) = db.execute("PRAGMA freelist_count").fetchone()
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    if free > 256 and free > pages // 2:
        for _ in range(min(free, 1000)):
            db.execute("PRAGMA incremental_vacuum(1)")  # a page for each execute()
