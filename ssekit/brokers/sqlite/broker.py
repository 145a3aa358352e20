"""``sqlite:``, a log in a file, for every process of one machine.

Workers, CGI scripts, cron jobs and the command line share it: the file is in WAL mode, so readers
never wait for a writer, and an append wakes the other processes
(`ssekit.brokers.sqlite.other_processes`). What is in it is `ssekit.brokers.sqlite.log`'s to know.
This module has the rule for a file that another process has locked: try again after a short sleep,
which gevent makes cooperative, and never in SQLite's own busy timeout, which would stop every
greenlet of the process.

One connection per process serves all of its threads, each call being one short transaction under
a lock.  Before each the path is looked at, so that a deleted or replaced file is noticed: a new
one is another log, with another epoch.
"""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections.abc import Callable, Collection
from typing import Literal, TypeVar
from urllib.parse import unquote_to_bytes

from ssekit.brokers.codec import as_stored, pack, unpack
from ssekit.brokers.contract import Broker, Entry
from ssekit.brokers.sqlite import log as sqlitelog
from ssekit.brokers.sqlite.file import Locked, OpenFile
from ssekit.brokers.sqlite.other_processes import Neighbours, SocketWakeup
from ssekit.errors import BrokerUnavailable, HubClosed
from ssekit.host.forks import around_fork, on_fork
from ssekit.host.wakeup import NativeLock, Wakeups
from ssekit.wire import Event

T = TypeVar("T")

_PATIENCE = 10.0  # seconds that a call tries while others hold the lock
_LOOK = 1.0  # seconds after which a follower looks at the file though it was not woken
_LOOK_ALONE = 0.1  # the same where other processes cannot wake it


class SQLiteBroker(Broker):
    def __init__(self, path: str, history: int) -> None:
        self._path = os.path.abspath(path)
        self._history = history
        self._closed = False
        self._lock = NativeLock()
        self._file: OpenFile | None = None
        self._neighbours = Neighbours(os.path.realpath(self._path))  # the same by any name
        self._wakeups = Wakeups(self._neighbours.wakeup)
        on_fork(self)
        around_fork(self)

    @classmethod
    def from_url(cls, url: str, history: int) -> SQLiteBroker:
        path = os.fsdecode(unquote_to_bytes(url.removeprefix("sqlite:///")))
        if not url.startswith("sqlite:///") or not path or path == ":memory:" or "\0" in path:
            raise ValueError(f"{url!r}: write sqlite:///relative.db or sqlite:////absolute.db")
        if "?" in url or "#" in url:
            # Elsewhere an option would follow; here it would become a part of the file's name.
            raise ValueError(f"{url!r}: sqlite:/// has no options; a name is quoted (%3F, %23)")
        return cls(path, history)

    def before_fork(self) -> None:
        """Wait for the end of a transaction: the child would take its lock for one of its own."""
        self._lock.acquire()

    def after_fork_in_parent(self) -> None:
        self._lock.release()

    def after_fork(self) -> None:
        self._lock = NativeLock()
        if self._file is not None:
            self._file.abandon()
            self._file = None
        self._wakeups.abandon()
        self._neighbours.abandon()

    def append(self, channel: str, event: Event) -> Event:
        event = as_stored(event)
        packed = pack(event)
        entry_id = self._transact(
            "IMMEDIATE", lambda db: sqlitelog.append(db, channel, packed, self._history)
        )
        self._wakeups.notify()
        self._neighbours.notify()
        return unpack(channel, entry_id, packed).event

    def read(self, channels: Collection[str], after: str, limit: int) -> tuple[list[Entry], str]:
        return self._transact("DEFERRED", lambda db: sqlitelog.read(db, channels, after, limit))

    def follow(self, after: str, timeout: float) -> tuple[list[Entry], str]:
        deadline = time.monotonic() + timeout
        if self._file is None:
            self.tip()  # there is a file then, and a place beside it for a wake-up

        def newer(db: sqlite3.Connection) -> list[Entry]:
            return sqlitelog.newer(db, after)

        with self._wakeups.waiting() as wakeup:
            look = _LOOK if isinstance(wakeup, SocketWakeup) else _LOOK_ALONE
            while not (entries := self._transact("DEFERRED", newer)):
                left = deadline - time.monotonic()
                if left <= 0:
                    return [], after
                wakeup.wait(min(left, look))
        return entries, entries[-1].id

    def tip(self) -> str:
        return self._transact("DEFERRED", sqlitelog.tip)

    def close(self) -> None:
        self._closed = True
        self._wakeups.close()
        self._let_go()
        self._neighbours.close()

    def _let_go(self) -> None:
        """Close the file; the next transaction opens it again."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _transact(
        self, kind: Literal["DEFERRED", "IMMEDIATE"], work: Callable[[sqlite3.Connection], T]
    ) -> T:
        """Do the work in one transaction, and try again while another process holds the lock."""
        deadline = time.monotonic() + _PATIENCE
        pause = 0.001
        while True:
            try:
                with self._lock:
                    return self._try(kind, work)
            except BrokerUnavailable:
                raise
            except (sqlite3.Error, OSError, Locked) as error:
                if not _is_locked(error):
                    self._let_go()
                    raise BrokerUnavailable(f"{self._path}: {error}") from error
                if time.monotonic() > deadline:
                    text = f"{self._path} was locked by another process for {_PATIENCE:.0f} s"
                    raise BrokerUnavailable(text) from error
            time.sleep(random.uniform(0, pause))  # noqa: S311 - spreads those who wait
            pause = min(pause * 2, 0.02)

    def _try(self, kind: str, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._closed:
            raise HubClosed("the hub is closed")
        if self._file is not None and not self._file.is_current():
            self._let_go()
        if self._file is None:
            self._file = OpenFile(self._path)
        file = self._file
        db = file.connection
        try:
            db.execute(f"BEGIN {kind}")
            result = work(db)
            db.execute("COMMIT")
        except BaseException as error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error) and not file.is_current():
                raise Locked from error  # nobody will read that file again
            raise
        return result


def _is_locked(error: Exception) -> bool:
    if isinstance(error, Locked):
        return True
    return isinstance(error, sqlite3.OperationalError) and (
        "is locked" in str(error) or "locking protocol" in str(error)
    )
