"""The file of a ``sqlite:`` log: finds it, makes it, and refuses one that is something else.

`ssekit.brokers.sqlite` uses this.  It knows the schema and what a file system can do to a file
that is in use: delete it, replace it, fill up, be read-only.  It writes no event.

SQLite itself is safe between processes, except that nobody may delete or replace a file that others
have open.  People do.  What the old file leaves beside it (``-wal`` and ``-shm``) must not be taken
for the new one's, so files are opened one at a time, under a lock on their folder, and what is left
of an old one is unlinked before a new one is opened.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from ssekit.errors import BrokerUnavailable

_APPLICATION = 0x55E717  # "application_id" of the file's header, which file(1) shows
_VERSION = 2  # of the schema
_SCHEMA = (
    # One row: the epoch, in which run of the machine it began, and the floor of `trimmed`.
    "CREATE TABLE log (epoch INTEGER NOT NULL, boot TEXT NOT NULL, floor INTEGER NOT NULL)",
    "CREATE TABLE past (epoch INTEGER PRIMARY KEY, last INTEGER NOT NULL)",
    "CREATE TABLE entry (seq INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, channel TEXT NOT NULL,"
    " packed TEXT NOT NULL)",
    # Up to which seq the entries of a channel were trimmed.
    "CREATE TABLE trimmed (channel TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID",
)


class Locked(Exception):
    """Raised if another process is just making or deleting the file: to be tried again."""


class OpenFile:
    """A connection, and which file on the disk it has open."""

    def __init__(self, name: str) -> None:
        self._name = name
        # Where the name is a symbolic link, SQLite has its files beside what the link leads to.
        self._path = path = os.path.realpath(name)
        with _locked_folder(path):
            if not os.path.exists(path):
                _make(path)
            self._identity = _identity(path)
            # timeout=0: SQLite's own waiting would block every greenlet of the thread.
            self.connection = sqlite3.connect(
                path, timeout=0, isolation_level=None, check_same_thread=False
            )
            try:
                _prepare(self.connection, path)
                self._wal = _identity(path + "-wal")
                if not self.is_current():
                    raise Locked
            except BaseException as error:
                self.connection.close()
                if isinstance(error, sqlite3.Error) and not self.is_current():
                    raise Locked from error
                raise

    def is_current(self) -> bool:
        """Whether the name still leads to this file."""
        return self._identity is not None and _identity(self._name) == self._identity

    def close(self) -> None:
        """Close it; if it was deleted or replaced, SQLite leaves what lies there now alone."""
        self.connection.close()
        # OSError: the whole folder is gone, or closed to us: nothing there is ours to clear away.
        with suppress(Locked, OSError):
            if self.is_current():
                return
            with _locked_folder(self._path):
                # Another file in its place must not be read with what this one has left.
                if self._wal is not None and _identity(self._path + "-wal") == self._wal:
                    _unlink_beside(self._path)

    def abandon(self) -> None:
        """Close a fork's copy of it.

        SQLite's advice is to keep such a connection unused for ever, as a transaction may be open
        in it.  In this one there is none.  Kept, it would do harm: SQLite takes its locks for this
        process's own, while the kernel gave them to the parent alone.  Once the parent has ended,
        another process would believe that nobody uses the file, and delete its -wal under us.
        """
        with suppress(sqlite3.Error):
            self.connection.close()


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


@contextmanager
def _locked_folder(path: str) -> Iterator[None]:
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Locked from None
        except OSError:
            pass  # a file system without such locks: two first users at once are left to SQLite
        yield
    finally:
        os.close(folder)


def _make(path: str) -> None:
    _unlink_beside(path)
    # Readable for this user alone.  A file that is to be shared can be made beforehand.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _unlink_beside(path: str) -> None:
    for left in (path + "-wal", path + "-shm", path + "-journal"):
        with suppress(FileNotFoundError):
            os.unlink(left)


def now() -> int:
    """Return the time as an epoch."""
    return time.time_ns() // 1_000_000


@cache
def boot_of_machine() -> str:
    """Return what names this run of the machine, where the system says it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""  # a power cut may then go unnoticed


def _prepare(db: sqlite3.Connection, path: str) -> None:
    """Make an empty file a log."""
    # A commit is then safe from the death of any process, though not from a power cut.
    db.execute("PRAGMA synchronous = NORMAL")
    if not _is_log(db, path):
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("BEGIN IMMEDIATE")  # if this fails, the connection is closed
        if not _is_log(db, path):
            for statement in _SCHEMA:
                db.execute(statement)
            db.execute("INSERT INTO log VALUES (?, ?, 0)", (now(), boot_of_machine()))
            db.execute(f"PRAGMA application_id = {_APPLICATION}")
        db.execute(f"PRAGMA user_version = {_VERSION}")
        db.execute("COMMIT")
    db.execute("PRAGMA journal_size_limit = 4000000")


def _is_log(db: sqlite3.Connection, path: str) -> bool:
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if application == _APPLICATION and version == _VERSION:
        return True
    if application == _APPLICATION:
        raise BrokerUnavailable(f"{path} was written by another version of ssekit: delete it")
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables:
        raise BrokerUnavailable(f"{path} is a database of something else: name another file")
    return False
