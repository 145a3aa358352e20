"""The accounts of a ``sqlite:`` log: how much each channel keeps, and what has to go.

`Accounts` are those of one transaction.  They begin by settling: what was appended since they were
last written is counted.  From then on the transaction notes each change as it makes it, and at the
end the log's row is written back.

What an entry costs here is the same however long the log is and however many channels it has.  A
channel is trimmed at twice its history, so that each event is deleted once and not looked at
before; the longest channel is looked for only if the log is full; and for each entry one more
channel is tidied, in turn.
"""

from __future__ import annotations

import sqlite3

from ssekit.brokers import contract
from ssekit.brokers.contract import Retention
from ssekit.brokers.sqlite.reading import end_is_forgotten
from ssekit.brokers.sqlite.rows import EVENT, PASSED, Channel, Log, unsettled

_GIVEN_UP = 1000  # events or channels that one entry makes others give up at most
_SPARE = 32  # events that a full log has room for once it has given up some
_GIVE_BACK = 500  # entries after which room is given back to the file system


class Accounts:
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.log = Log.load(db)
        self._loaded = self.log.row
        self._settled = self.log.settled
        self._before: dict[str, tuple[int, bool]] = {}  # `counted` and `bare` of loaded channels
        self._settle()

    def _settle(self) -> None:
        """Count what was appended since; none of it takes a channel, or the log, over a bound."""
        for name, events, last in unsettled(self._db, self.log):
            channel = self._load(name)
            channel.events += events
            channel.last = last
            self.save(channel)

    def done(self) -> None:
        """Do what is left to do at the end of the transaction."""
        log, db = self.log, self._db
        stored = log.tip - self._settled
        if stored:
            self._tidy(stored)
            db.execute(
                "DELETE FROM entry WHERE seq > ? AND seq <= ? AND kept = ?",
                (self._settled - contract.RECENT, log.tip - contract.RECENT, PASSED),
            )
            if log.tip // _GIVE_BACK != self._settled // _GIVE_BACK:
                _give_back_room(db)
        log.settled = log.tip
        if log.row != self._loaded:
            log.save(db)

    def change_retention(self, given: Retention) -> None:
        """Write what was given into the log."""
        log = self.log
        new = log.retention.changed_by(given)
        log.history, log.capacity = new.history, new.capacity
        log.max_keys, log.max_age = new.max_keys, new.max_age

    # -- channels

    def channel(self, name: str) -> Channel:
        """Return the channel, known or new, without what has expired."""
        channel = self._load(name)
        self._refresh(channel)
        return channel

    def save(self, channel: Channel) -> None:
        """Write a channel's row, and count the change."""
        counted, bare = self._before[channel.name]
        log = self.log
        log.counted += channel.counted - counted
        if channel.bare and channel.trimmed <= log.floor:
            self._db.execute("DELETE FROM channel WHERE name = ?", (channel.name,))
            log.bare -= bare
            self._before[channel.name] = (0, False)
            return
        channel.save(self._db)
        log.bare += channel.bare - bare
        self._before[channel.name] = (channel.counted, channel.bare)
        while log.bare > contract.CHANNELS_REMEMBERED:
            name, trimmed = self._db.execute(
                "SELECT name, trimmed FROM channel WHERE bare = 1 ORDER BY trimmed LIMIT 1"
            ).fetchone()
            self._db.execute("DELETE FROM channel WHERE name = ?", (name,))
            log.floor = max(log.floor, trimmed)
            log.bare -= 1

    def _load(self, name: str) -> Channel:
        channel = Channel.load(self._db, name)
        if channel is None:
            self._before[name] = (0, False)
            return Channel(name, trimmed=self.log.floor)
        self._before[name] = (channel.counted, channel.bare)
        return channel

    def _refresh(self, channel: Channel) -> None:
        """Forget what has expired of a channel."""
        changed = self._expire(channel)
        if channel.end is not None and end_is_forgotten(self._db, self.log, channel):
            self.forget_end(channel)
            changed = True
        if changed:
            self.save(channel)

    def _tidy(self, many: int) -> None:
        """Forget what has expired of some more channels, in turn."""
        log = self.log
        channels = Channel.load_some(self._db, log.turn, many)
        if len(channels) < many:  # from the first name again
            first = Channel.load_some(self._db, "", many - len(channels))
            channels += [channel for channel in first if channel.name <= log.turn]
        log.turn = channels[-1].name if channels else ""
        for channel in channels:
            self._before[channel.name] = (channel.counted, channel.bare)
            self._refresh(channel)

    # -- what is kept no longer

    def trim(self, channel: Channel) -> None:
        """Bound the channel, save it, and bound the whole log."""
        history = self.log.history
        if channel.produced:
            self._cut(channel, contract.MOST_PRODUCED)
        elif channel.events >= 2 * history:
            self._cut(channel, history)
        self.save(channel)
        self.bound()

    def bound(self) -> None:
        """Bound the whole log; a full one gives up some more, so that not each append has to."""
        room = self.log.retention.room
        if self.log.counted <= room:
            return
        for _ in range(_GIVEN_UP):
            if self.log.counted <= room - min(_SPARE, room // 1000):
                return
            found = self._db.execute(
                "SELECT name FROM channel WHERE produced = 1 AND end IS NOT NULL AND events > 0"
                " ORDER BY end LIMIT 1"
            ).fetchone()
            if found is not None:
                channel = self.channel(found[0])
                self._cut(channel, 0)
            else:
                (name,) = self._db.execute(
                    "SELECT name FROM channel WHERE length > 0 ORDER BY length DESC, last LIMIT 1"
                ).fetchone()
                channel = self.channel(name)
                # It may have expired just now.
                self._cut(channel, max(0, min(self.log.history, channel.events - 1)))
            self.save(channel)

    def withdraw(self, seq: int) -> None:
        """Keep an entry no longer, except for those who follow."""
        withdraw(self._db, seq, self.log.tip)

    def forget_end(self, channel: Channel) -> None:
        """Make a channel that is finished one like others; the caller saves it."""
        if channel.end is not None:
            self.withdraw(channel.end)
        channel.end = channel.reason = None
        channel.produced = 0

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
        followed = min(upto, self.log.tip - contract.RECENT)
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
        expired = self.log.expired
        if channel.internal:
            expired = self.log.internal_expired
        elif self.log.max_age is None:
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


def withdraw(db: sqlite3.Connection, seq: int, tip: int) -> None:
    """Keep an entry no longer, except for those who follow the log, which ends at ``tip``."""
    if seq > tip - contract.RECENT:
        db.execute("UPDATE entry SET kept = ? WHERE seq = ?", (PASSED, seq))
    else:
        db.execute("DELETE FROM entry WHERE seq = ?", (seq,))


def _give_back_room(db: sqlite3.Connection) -> None:
    """Shorten the file after large events."""
    (free,) = db.execute("PRAGMA freelist_count").fetchone()
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    if free > 256 and free > pages // 2:
        for _ in range(min(free, 1000)):
            db.execute("PRAGMA incremental_vacuum(1)")  # a page for each execute()
