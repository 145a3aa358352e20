"""The file of a ``sqlite:`` log: makes it, opens it, and notices when it is deleted or replaced.

It knows the tables and what a file system can do to a file that is in use: delete it, replace it,
fill up, be read-only.  It writes no event.

SQLite itself is safe between processes, except that nobody may delete or replace a file that others
have open.  People do.  What the old file leaves beside it (``-wal`` and ``-shm``) must not be taken
for the new one's, so files are opened one at a time, under a lock on their folder, and what is left
of an old one is unlinked before a new one is opened.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# gevent's os.close() may close only at the event loop's next turn.  Our lock on the folder would
# stay until then, and closing the file once SQLite has it open releases SQLite's locks (POSIX).
from posix import close

from ssekit.brokers.contract import Retention
from ssekit.brokers.sqlite.appending import Known
from ssekit.brokers.sqlite.epochs import boot_of_machine, now
from ssekit.brokers.sqlite.place import APPLICATION, VERSION, holds_log, identity, resolved, uri

_TABLES = (
    # One row; see `ssekit.brokers.sqlite.rows.Log`.
    "CREATE TABLE log (epoch INTEGER NOT NULL, boot TEXT NOT NULL, settled INTEGER NOT NULL,"
    " counted INTEGER NOT NULL, bare INTEGER NOT NULL, floor INTEGER NOT NULL,"
    " turn TEXT NOT NULL, history INTEGER NOT NULL, capacity INTEGER NOT NULL,"
    " max_keys INTEGER NOT NULL, max_age REAL)",
    "CREATE TABLE past (epoch INTEGER PRIMARY KEY, last INTEGER NOT NULL)",
    "CREATE TABLE entry (seq INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, channel TEXT NOT NULL,"
    " key TEXT, passing INTEGER NOT NULL, kept INTEGER NOT NULL, time REAL NOT NULL,"
    " body BLOB NOT NULL)",
    "CREATE INDEX entry_of_channel ON entry (channel, kept, seq)",
    "CREATE UNIQUE INDEX value_of_key ON entry (channel, key) WHERE kept = 2",
    # See `ssekit.brokers.sqlite.rows.Channel`; `length` is 0 where it is not compared.
    "CREATE TABLE channel (name TEXT PRIMARY KEY, trimmed INTEGER NOT NULL, last INTEGER NOT NULL,"
    " events INTEGER NOT NULL, keys INTEGER NOT NULL, end INTEGER, ended REAL NOT NULL,"
    " reason TEXT, producer TEXT, produced INTEGER NOT NULL, length INTEGER NOT NULL,"
    " bare INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX longest ON channel (length DESC, last) WHERE length > 0",
    "CREATE INDEX finished_first ON channel (end)"
    " WHERE produced = 1 AND end IS NOT NULL AND events > 0",
    "CREATE INDEX trimmed_first ON channel (trimmed) WHERE bare = 1",
    "CREATE TABLE lease (holder TEXT PRIMARY KEY, beats INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE held (holder TEXT NOT NULL, channel TEXT NOT NULL, member TEXT)",
    "CREATE INDEX held_by ON held (holder)",
    "CREATE INDEX holders ON held (channel, member, holder)",
)

# What SQLite says of a file that is not as we leave it; Python 3.10 does not tell its error codes.
_DAMAGE = ("malformed", "not a database", "no such table", "no such column", "lost the row")

_kept_for_ever: list[sqlite3.Connection] = []


class Locked(Exception):
    """Raised if another process is just making or deleting the file: to be tried again."""


class NoLog(Exception):
    """Raised if there is nothing in the place, and nothing is to be created."""


class Damaged(Exception):
    """Raised if a log is not as we leave it.  ``identity`` tells which file it is."""

    def __init__(self, error: Exception, identity: tuple[int, int] | None) -> None:
        super().__init__(str(error))
        self.identity = identity


class OpenFile:
    """A connection, and which file on the disk it has open."""

    def __init__(self, name: str, retention: Retention, *, create: bool) -> None:
        self._name = name
        self.known: Known | None = None
        """What the connection knows between two transactions."""
        # Where the name is a symbolic link, SQLite has its files beside what the link leads to.
        self._path = path = resolved(name)
        with _locked_folder(path):
            before = identity(path)
            try:
                self.created = not holds_log(path)
            except (sqlite3.Error, FileNotFoundError) as error:
                if identity(path) != before:
                    raise Locked from error
                raise
            if self.created:
                if not create:
                    raise NoLog
                if not os.path.exists(path):
                    _make(path)
            self.identity = identity(path)
            try:
                self.connection = _connected(path)
            except sqlite3.Error as error:
                self.explain(error)
                raise
            try:
                if self.created:
                    _fill(self.connection, retention)
                _set_up(self.connection)
                self._wal = identity(path + "-wal")
                if not self.is_current():
                    raise Locked
            except BaseException as error:
                self.connection.close()
                self.explain(error)
                raise

    def explain(self, error: BaseException) -> None:
        """Raise `Locked` or `Damaged` if that is what an error of SQLite's means."""
        if isinstance(error, sqlite3.Error):
            if not self.is_current():
                raise Locked from error  # nobody will read that file again
            if any(sign in str(error) for sign in _DAMAGE):
                raise Damaged(error, self.identity) from error

    def is_current(self) -> bool:
        """Whether the name still leads to this file."""
        return self.identity is not None and identity(self._name) == self.identity

    def close(self) -> None:
        """Close it; if it was deleted or replaced, SQLite leaves what lies there now alone."""
        self.connection.close()
        # OSError: the whole folder is gone, or closed to us: nothing there is ours to clear away.
        with suppress(Locked, OSError):
            if self.is_current():
                return
            with _locked_folder(self._path):
                # Another file in its place must not be read with what this one has left.
                if self._wal is not None and identity(self._path + "-wal") == self._wal:
                    _unlink_beside(self._path)

    def abandon(self) -> None:
        """Close a fork's copy of it.

        SQLite's advice is to keep such a connection unused forever, because a transaction may be
        open in it; this one never has an open transaction.  Keeping it would do harm: SQLite would
        believe that this process holds its locks, while the kernel gave them to the parent alone.
        Once the parent has ended, another process would find the file unused, and delete its -wal.
        """
        with suppress(sqlite3.Error):
            self.connection.close()

    def disable(self) -> None:
        """Let a fork's copy, in the middle of a transaction of the parent's, do nothing more."""
        self.connection.set_authorizer(lambda *_: sqlite3.SQLITE_DENY)
        _kept_for_ever.append(self.connection)


def clear_damaged(name: str, damage: Damaged) -> None:
    """Put an empty file in the place of a damaged log, unless somebody has done so already."""
    path = resolved(name)
    with _locked_folder(path):
        if identity(path) != damage.identity or not holds_log(path):
            return
        before = os.stat(path)
        os.unlink(path)
        _make(path)
        with suppress(OSError):  # not our group: then its members make a log of their own
            os.chown(path, -1, before.st_gid)
            os.chmod(path, before.st_mode & 0o666)


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
        close(folder)


def _connected(path: str) -> sqlite3.Connection:
    # timeout=0: SQLite's own waiting would block every greenlet of the thread.
    return sqlite3.connect(
        uri(path, "mode=rw"),
        uri=True,
        timeout=0,
        isolation_level=None,
        check_same_thread=False,
    )


def _make(path: str) -> None:
    _unlink_beside(path)
    # Readable for this user alone.  A file that is to be shared can be made beforehand.
    close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _unlink_beside(path: str) -> None:
    for beside in (path + "-wal", path + "-shm", path + "-journal"):
        with suppress(FileNotFoundError):
            os.unlink(beside)


def _fill(db: sqlite3.Connection, retention: Retention) -> None:
    """Make an empty file a log.

    Not in WAL mode yet: what the file is has to be in its own header, for those who look there.
    """
    db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    db.execute("BEGIN IMMEDIATE")  # if this fails, the connection is closed
    if db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
        for statement in _TABLES:
            db.execute(statement)
        db.execute(
            "INSERT INTO log VALUES (?, ?, 0, 0, 0, 0, '', ?, ?, ?, ?)",
            (
                *(now(), boot_of_machine()),
                *(retention.history, retention.capacity, retention.max_keys, retention.max_age),
            ),
        )
        db.execute(f"PRAGMA application_id = {APPLICATION}")
        db.execute(f"PRAGMA user_version = {VERSION}")
    db.execute("COMMIT")


def _set_up(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA journal_mode = WAL")
    # A commit is then safe from the death of any process, though not from a power cut.
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute("PRAGMA journal_size_limit = 4000000")
