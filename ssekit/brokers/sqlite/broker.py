"""``sqlite:``, a log in a file, for every process of one machine.

Workers, CGI scripts, cron jobs and the command line share it: the file is in WAL mode, so readers
never wait for a writer, and an append wakes the followers of other processes
(`ssekit.brokers.other_processes`).  What is in the file is known to
`ssekit.brokers.sqlite.reading` and `ssekit.brokers.sqlite.writing`.  This module has the rule for a
file that another process has locked: try again after a short sleep, which gevent makes cooperative,
and never in SQLite's own busy timeout, which would stop every greenlet of the process.

One connection per process serves all of its threads, each call being one short transaction under
a lock.  Before each the path is looked at, so that a deleted or replaced file is noticed: a new
one is another log, with another epoch.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Collection, Mapping
from typing import Literal, TypeVar
from urllib.parse import unquote_to_bytes

from ssekit.brokers.contract import Broker, Entry, Held, HistoryLost, Opening, Retention, Status
from ssekit.brokers.interrupted import NotInterrupting
from ssekit.brokers.other_processes import OtherProcesses, SocketWakeup
from ssekit.brokers.sqlite import leases, reading
from ssekit.brokers.sqlite.file import Damaged, Locked, NoLog, OpenFile, clear_damaged
from ssekit.brokers.sqlite.writing import Writer, change_retention
from ssekit.errors import BrokerUnavailable, HubClosed
from ssekit.host.backoff import Backoff
from ssekit.host.forks import around_fork, on_fork
from ssekit.host.wakeup import NativeLock, Wakeups

T = TypeVar("T")

_log = logging.getLogger("ssekit.brokers")

_PATIENCE = 10.0  # seconds that a call tries while others hold the lock
_POLL = 1.0  # seconds after which a follower looks at the file though it was not woken
_POLL_ALONE = 0.1  # the same where other processes cannot wake it
_FORKED = (
    "this process was forked by a signal handler in the middle of a transaction, and cannot use"
    " the log: fork elsewhere, or start another program"
)


class SQLiteBroker(Broker):
    def __init__(self, path: str, retention: Retention) -> None:
        self._path = os.path.abspath(path)
        self._retention = retention
        self._retained: tuple[int, int] | None = None  # the file that has what was given
        self._closed = False
        self._unusable: str | None = None
        self._lock = NativeLock()
        self._once = NotInterrupting()
        self._file: OpenFile | None = None
        self._others = OtherProcesses(os.path.realpath(self._path))  # the same by any name
        self._wakeups = Wakeups(self._others.wakeup)
        on_fork(self)
        around_fork(self)

    @classmethod
    def from_url(cls, url: str, retention: Retention) -> SQLiteBroker:
        path = os.fsdecode(unquote_to_bytes(url.removeprefix("sqlite:///")))
        if not url.startswith("sqlite:///") or not path or path == ":memory:" or "\0" in path:
            raise ValueError(f"{url!r}: write sqlite:///relative.db or sqlite:////absolute.db")
        if "?" in url or "#" in url:
            # Elsewhere an option would follow; here it would become a part of the file's name.
            raise ValueError(f"{url!r}: sqlite:/// has no options; a name is quoted (%3F, %23)")
        return cls(path, retention)

    def before_fork(self) -> None:
        """Wait for the end of a transaction: the child would take its lock for one of its own."""
        self._lock.acquire()

    def after_fork_in_parent(self) -> None:
        self._lock.release()

    def after_fork(self) -> None:
        if self._once.inside:
            self._unusable = _FORKED
        if self._file is not None:
            if self._once.inside:
                self._file.disable()
            else:
                self._file.abandon()
            self._file = None
        self._lock = NativeLock()
        self._once = NotInterrupting()
        self._wakeups.abandon()
        self._others.abandon()

    # -- writing

    def append(
        self,
        channel: str,
        body: bytes,
        *,
        key: str | None = None,
        passing: bool = False,
        holder: str | None = None,
    ) -> Entry:
        def work(writer: Writer) -> Entry:
            return writer.append(channel, body, key, passing, holder)

        return self._notifying(self._write(work, anew=True))

    def remove(self, channel: str, key: str, body: bytes) -> Entry | None:
        return self._notifying(self._change(lambda log: log.remove(channel, key, body), None))

    def finish(
        self, channel: str, body: bytes, reason: str, *, holder: str | None = None
    ) -> Entry | None:
        def work(writer: Writer) -> Entry | None:
            return writer.finish(channel, body, reason, holder)

        return self._notifying(self._write(work))

    def reopen(self, channel: str) -> bool:
        return self._change(lambda log: log.reopen(channel), False)

    def produce(self, channel: str, holder: str) -> None:
        self._write(lambda log: log.produce(channel, holder))

    def join(self, members: Mapping[tuple[str, str], bytes], holder: str) -> None:
        self._notifying(self._write(lambda log: log.join(members, holder)))

    def leave(self, members: Mapping[tuple[str, str], bytes], holder: str) -> None:
        self._notifying(self._change(lambda log: log.leave(members, holder), None))

    def beat(self, holder: str, *, first: bool = False) -> bool:
        if first:
            return self._write(lambda log: log.beat(holder, first=True))
        return self._change(lambda log: log.beat(holder), False)

    def end_lease(self, holder: str, beats: int) -> bool:
        return self._change(lambda log: log.end_lease(holder, beats), True)

    # -- reading

    def read(self, channels: Collection[str], after: str, limit: int) -> tuple[list[Entry], str]:
        return self._read_from(after, lambda db: reading.read(db, channels, after, limit))

    def follow(self, after: str, timeout: float) -> tuple[list[Entry], str]:
        deadline = time.monotonic() + timeout
        entries = self._newer(after)  # what is foreign is found out before anything is made there
        if not entries:
            with self._wakeups.waiting() as wakeup:
                seconds = _POLL if isinstance(wakeup, SocketWakeup) else _POLL_ALONE
                while not (entries := self._newer(after)):
                    remaining = deadline - time.monotonic()
                    if remaining <= 0:
                        return [], after
                    wakeup.wait(min(remaining, seconds))
        return entries, entries[-1].id

    def _newer(self, after: str) -> list[Entry]:
        return self._read_from(after, lambda db: reading.newer(db, after))

    def recent(self, limit: int) -> tuple[list[Entry], str]:
        return self._transact("DEFERRED", lambda db: reading.recent(db, limit), create=True)

    def opening(self, channels: Collection[str], replay: int | None) -> Opening:
        def work(db: sqlite3.Connection) -> Opening:
            return reading.opening(db, channels, replay)

        return self._transact("DEFERRED", work, create=True)

    def history(self, channels: Collection[str], limit: int, before: str | None) -> list[Entry]:
        def work(db: sqlite3.Connection) -> list[Entry]:
            return reading.history(db, channels, limit, before)

        return self._read(work, []) if before is None else self._read_from(before, work)

    def ends(self, channels: Collection[str]) -> dict[str, Entry]:
        return self._read(lambda db: reading.ends(db, channels), {})

    def status(self, channel: str) -> Status:
        return self._read(lambda db: reading.status(db, channel), Status("open"))

    def tip(self) -> str:
        return self._transact("DEFERRED", reading.tip, create=True)

    def retention(self) -> Retention:
        found = self._read(reading.retention, self._retention)
        return found.changed_by(self._retention)

    def leases(self) -> dict[str, int]:
        return self._read(leases.all_leases, {})

    def held(self, holder: str) -> list[Held]:
        return self._read(lambda db: leases.held(db, holder), [])

    def close(self) -> None:
        self._closed = True
        self._wakeups.close()
        with self._lock:
            if not self._once.inside:  # else it has interrupted a call, which will release the file
                self._release()
        self._others.close()

    # -- transactions

    def _notifying(self, result: T) -> T:
        self._wakeups.notify()
        self._others.notify()
        return result

    def _write(self, work: Callable[[Writer], T], *, anew: bool = False) -> T:
        """Do the work of a writer, in a log that is created if there is none."""
        return self._transact("IMMEDIATE", _writing(work), create=True, anew=anew)

    def _change(self, work: Callable[[Writer], T], empty: T) -> T:
        """Do the work of a writer; ``empty`` is what it comes to where there is no log."""
        try:
            return self._transact("IMMEDIATE", _writing(work))
        except NoLog:
            return empty

    def _read(self, work: Callable[[sqlite3.Connection], T], empty: T) -> T:
        try:
            return self._transact("DEFERRED", work)
        except NoLog:
            return empty

    def _read_from(self, cursor: str, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return self._transact("DEFERRED", work)
        except NoLog:
            raise HistoryLost(f"{cursor!r:.80} is not in the log, which is empty") from None

    def _transact(
        self,
        kind: Literal["DEFERRED", "IMMEDIATE"],
        work: Callable[[sqlite3.Connection], T],
        *,
        create: bool = False,
        anew: bool = False,
    ) -> T:
        """Do the work in one transaction, and try again while another process holds the lock.

        ``create``: an empty place becomes a log; else it is `NoLog`.  ``anew``: so does a damaged
        log, which is then lost.
        """
        deadline = time.monotonic() + _PATIENCE
        backoff = Backoff(0.001, 0.02, low=0.0)
        while True:
            try:
                with self._lock, self._once:
                    return self._try(kind, work, create)
            except Damaged as damage:
                self._clear(damage, anew and time.monotonic() < deadline)
            except (sqlite3.Error, OSError, Locked) as error:
                if isinstance(error, BrokerUnavailable):
                    raise
                if not _is_locked(error):
                    with self._lock:
                        self._release()
                    raise BrokerUnavailable(f"{self._path}: {error}") from error
                if time.monotonic() > deadline:
                    text = f"{self._path} was locked by another process for {_PATIENCE:.0f} s"
                    raise BrokerUnavailable(text) from error
            time.sleep(backoff.next())

    def _try(self, kind: str, work: Callable[[sqlite3.Connection], T], create: bool) -> T:
        if self._closed:
            raise HubClosed("the hub is closed")
        if self._unusable is not None:
            raise BrokerUnavailable(self._unusable)
        if self._file is not None and not self._file.is_current():
            self._release()
        if self._file is None:
            self._file = OpenFile(self._path, self._retention, create=create)
        file = self._file
        if create and self._retention.given and self._retained != file.identity:
            if not file.created:
                self._run(file, "IMMEDIATE", lambda db: change_retention(db, self._retention))
            self._retained = file.identity
        return self._run(file, kind, work)

    def _run(self, file: OpenFile, kind: str, work: Callable[[sqlite3.Connection], T]) -> T:
        db = file.connection
        try:
            db.execute(f"BEGIN {kind}")
            result = work(db)
            db.execute("COMMIT")
        except BaseException as error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            file.explain(error)
            raise
        finally:
            if self._closed:
                self._release()
        return result

    def _clear(self, damage: Damaged, anew: bool) -> None:
        """Clear a damaged log away if a new one is to begin, else raise."""
        with self._lock:
            self._release()
        if not anew:
            text = f"{self._path} is damaged ({damage}): the next publish starts a new log"
            raise BrokerUnavailable(text) from damage
        _log.error("%s is damaged (%s): a new log replaces it", self._path, damage)
        try:
            clear_damaged(self._path, damage)
        except Locked:
            pass  # another process is at it
        except OSError as error:
            raise BrokerUnavailable(f"{self._path} is damaged ({damage}): {error}") from error

    def _release(self) -> None:
        """Close the file; the next transaction opens it again."""
        if self._file is not None:
            file, self._file = self._file, None
            file.close()


def _writing(work: Callable[[Writer], T]) -> Callable[[sqlite3.Connection], T]:
    def transaction(db: sqlite3.Connection) -> T:
        writer = Writer(db)
        result = work(writer)
        writer.done()
        return result

    return transaction


def _is_locked(error: Exception) -> bool:
    if isinstance(error, Locked):
        return True
    return isinstance(error, sqlite3.OperationalError) and (
        "is locked" in str(error) or "locking protocol" in str(error)
    )
