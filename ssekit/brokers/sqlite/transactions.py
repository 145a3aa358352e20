"""Transactions of a ``sqlite:`` log: one connection of a process, and calls that take turns on it.

It has the rule for a file that another process has locked: try again after a short sleep, which
gevent makes cooperative, and never in SQLite's own busy timeout, which would stop every greenlet of
the process.

One connection per process serves all of its threads, each call being one short transaction under
a lock.  Before each the path is looked at, so that a deleted or replaced file is noticed: a new
one is another log, with another epoch.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from typing import TypeVar

from ssekit.brokers.contract import Retention
from ssekit.brokers.interrupted import NotInterrupting
from ssekit.brokers.sqlite.appending import Known
from ssekit.brokers.sqlite.file import Damaged, Locked, OpenFile, clear_damaged
from ssekit.brokers.sqlite.writing import Writer
from ssekit.errors import BrokerUnavailable, HubClosed
from ssekit.host.backoff import Backoff
from ssekit.host.forks import around_fork, on_fork
from ssekit.host.wakeup import NativeLock

T = TypeVar("T")

_log = logging.getLogger("ssekit.brokers")

_PATIENCE = 10.0  # seconds that a call tries while others hold the lock
_FORKED = (
    "this process was forked by a signal handler in the middle of a transaction, and cannot use"
    " the log: fork elsewhere, or start another program"
)


class _Again(Backoff):
    """The waits of a call that tries again, until it has been patient."""

    def __init__(self) -> None:
        super().__init__(0.001, 0.02, low=0.0)
        self._deadline = time.monotonic() + _PATIENCE

    @property
    def is_over(self) -> bool:
        return time.monotonic() > self._deadline


class Transactions:
    """All transactions of one process in the file at ``path``."""

    def __init__(self, path: str, retention: Retention) -> None:
        self._path = path
        self._retention = retention
        self._retained: tuple[int, int] | None = None  # the file that has what was given
        self._closed = False
        self._unusable: str | None = None
        self._lock = NativeLock()
        self._once = NotInterrupting()
        self._file: OpenFile | None = None
        on_fork(self)
        around_fork(self)

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

    def close(self) -> None:
        """Close the file: every later call raises `HubClosed`."""
        self._closed = True
        with self._lock:
            if not self._once.inside:  # else it has interrupted a call, which will release the file
                self._release()

    def read(self, work: Callable[[sqlite3.Connection], T], *, create: bool = False) -> T:
        """Do work that changes nothing.

        ``create``: an empty place becomes a log; else `NoLog` is raised there.
        """
        again: _Again | None = None
        while True:
            try:
                with self._lock, self._once:
                    return self._transact("DEFERRED", self._current(create), work)
            except (sqlite3.Error, OSError, Locked, Damaged) as error:
                again = self._failed(error, again)

    def write(
        self,
        work: Callable[[Writer], T],
        *,
        create: bool = False,
        anew: bool = False,
        alone: Callable[[sqlite3.Connection, Known], T | None] | None = None,
    ) -> T:
        """Do the work of a writer.  ``anew``: a damaged log, which is then lost, becomes a new one.

        ``create`` is that of `read`.  ``alone`` does the work in one statement, without a
        transaction around it, or returns None if that cannot be, and has then done nothing.
        """
        again: _Again | None = None
        while True:
            try:
                with self._lock, self._once:
                    file = self._current(create)
                    if alone is not None and file.known is not None:
                        result = self._write_alone(file, file.known, alone)
                        if result is not None:
                            return result
                    return self._write(file, work)
            except (sqlite3.Error, OSError, Locked, Damaged) as error:
                again = self._failed(error, again, anew)

    def _current(self, create: bool) -> OpenFile:
        """Return the file that the path leads to now, which has the retention that was given."""
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
                self._write(file, lambda writer: writer.change_retention(self._retention))
            self._retained = file.identity
        return file

    def _transact(self, kind: str, file: OpenFile, work: Callable[[sqlite3.Connection], T]) -> T:
        db = file.connection
        try:
            db.execute(f"BEGIN {kind}")
            result = work(db)
            db.execute("COMMIT")
        except BaseException as error:
            _roll_back(file, error)
            raise
        finally:
            if self._closed:
                self._release()
        return result

    def _write(self, file: OpenFile, work: Callable[[Writer], T]) -> T:
        # What is known is put back after the commit, so a transaction that fails leaves none of it.
        known, file.known = file.known, None

        def write(db: sqlite3.Connection) -> tuple[T, Known | None]:
            writer = Writer(db, known)
            result = work(writer)
            writer.done()
            return result, writer.known

        result, file.known = self._transact("IMMEDIATE", file, write)
        return result

    def _write_alone(
        self,
        file: OpenFile,
        known: Known,
        work: Callable[[sqlite3.Connection, Known], T | None],
    ) -> T | None:
        file.known = None  # put back afterwards, as by `_write`
        try:
            result = work(file.connection, known)
        except sqlite3.IntegrityError:
            return None  # another process was quicker
        except sqlite3.Error as error:
            file.explain(error)
            raise
        finally:
            if self._closed:
                self._release()
        file.known = known
        return result

    def _failed(self, error: Exception, again: _Again | None, anew: bool = False) -> _Again:
        """Wait until a transaction that has failed may be tried again; raises if it may not."""
        if isinstance(error, BrokerUnavailable):
            raise error
        again = again or _Again()
        if isinstance(error, Damaged):
            self._clear(error, anew and not again.is_over)
        elif not _is_locked(error):
            with self._lock:
                self._release()
            raise BrokerUnavailable(f"{self._path}: {error}") from error
        elif again.is_over:
            text = f"{self._path} was locked by another process for {_PATIENCE:.0f} s"
            raise BrokerUnavailable(text) from error
        time.sleep(again.next())
        return again

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


def _roll_back(file: OpenFile, error: BaseException) -> None:
    """Undo a transaction; raises `Locked` or `Damaged` if that is what the error means."""
    if file.connection.in_transaction:
        file.connection.execute("ROLLBACK")
    file.explain(error)


def _is_locked(error: Exception) -> bool:
    if isinstance(error, Locked):
        return True
    return isinstance(error, sqlite3.OperationalError) and (
        "is locked" in str(error) or "locking protocol" in str(error)
    )
