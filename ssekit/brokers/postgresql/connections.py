"""Connections to PostgreSQL: one that follows, and a few each for what writes and for what reads.

This knows statements and answers, and what a log's functions raise; it knows no entry.  Each call
is one statement that is a transaction by itself, sent once: an error says whether it may have been
carried out, and nothing is sent a second time.

PgBouncer in transaction mode gives each transaction another connection of its own.  It shows by the
number of the process at the other end.  Then settings are made in each transaction, statements are
not prepared, and nothing is heard of LISTEN.
"""

from __future__ import annotations

import logging
import os
import threading
from _socket import socketpair
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from ssekit import host
from ssekit.brokers.interrupted import INTERRUPTING
from ssekit.brokers.places import Places, in_a_foreign_thread
from ssekit.errors import BrokerUnavailable
from ssekit.host.wakeup import Wakeup

try:
    import psycopg
    from psycopg import conninfo, sql, waiting
except ImportError as error:
    raise ImportError(
        "postgresql: URLs need the psycopg package: pip install 'ssekit[postgresql]'",
        name="psycopg",
    ) from error

from ssekit.brokers.postgresql.place import check
from ssekit.brokers.postgresql.schema import Schema

MOST = 3  # connections for what writes, and as many for what reads
_TIMEOUT = 5  # seconds to connect
_LONGEST = 10  # seconds that a statement may take, waiting for others included
_OPTIONS: dict[str, Any] = {
    "connect_timeout": _TIMEOUT,
    "application_name": "ssekit",
    # A connection whose other end has vanished is noticed after 4 to 9 seconds.
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
    "tcp_user_timeout": 4000,
}
_SETTINGS = {
    "statement_timeout": f"{_LONGEST}s",
    "idle_in_transaction_session_timeout": f"{_LONGEST}s",
    # Plans are made once, while the tables may still be small.  An index is always right.
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "jit": "off",
}

_log = logging.getLogger("ssekit.brokers")

_forgotten: list[object] = []
"""Connections of a parent process, which a child must not close in its name."""


class NoLog(Exception):
    """Raised if a function or table of the log is missing."""


class Damaged(Exception):
    """Raised if a table of the log has lost what it has to hold."""


class Answer(NamedTuple):
    """A row of the type ``answer``."""

    word: str
    detail: str | None
    epoch: int
    seq: int
    at: float
    channel: bytes
    key: bytes | None
    passing: bool
    body: bytes


class Connections:
    """All connections of one process to one database."""

    def __init__(self, url: str, schema: Schema) -> None:
        try:
            given = conninfo.conninfo_to_dict(url)
        except psycopg.ProgrammingError as error:
            # Not the URL whole: it may have a password.
            raise ValueError(f"this is not a valid PostgreSQL URL: {_text(error)}") from error
        self._info = conninfo.make_conninfo("", **{**_OPTIONS, **given})
        self._schema = schema
        self._all: set[Line] = set()
        self._begin()

    def _begin(self) -> None:
        self._closed = False
        self._warned = False
        self.writers = Pool("write")
        self.readers = Pool("read")
        self._followers = Pool("follow")

    @contextmanager
    def lend(self, pool: Pool) -> Iterator[Line]:
        """Lend a connection; waits for one if all are in use."""
        _check_waiting()
        me = threading.get_ident()
        if me in pool.busy:
            raise BrokerUnavailable(INTERRUPTING)
        foreign = in_a_foreign_thread()  # it cannot wait for a place among greenlets
        taken = False
        try:
            pool.busy.add(me)
            taken = not foreign and pool.places.take(_LONGEST)
            if not taken and not foreign:
                raise BrokerUnavailable(
                    f"all {MOST} connections to PostgreSQL that {pool.name} are busy"
                )
            with self._kept(pool) as line:
                yield line
        finally:
            if taken:
                pool.places.give_back()
            pool.busy.discard(me)

    @contextmanager
    def follower(self) -> Iterator[Line]:
        """Lend the connection that follows; there is a second one only if two follow at once."""
        _check_waiting()
        with self._kept(self._followers) as line:
            yield line

    def maintain(self, statement: str) -> None:
        """Carry out a statement that may take long and is no part of a transaction."""
        _check_waiting()
        line = self._new()
        try:
            with line.refusals():
                if not line.pooled:
                    line.connection.execute("SET statement_timeout = 0")
                line.connection.execute(statement.encode())
        finally:
            self._discard(line)

    @contextmanager
    def _kept(self, pool: Pool) -> Iterator[Line]:
        line = self._idle(pool) or self._new()
        try:
            yield line
        finally:
            if line.usable and not self._closed and line in self._all:
                pool.idle.append(line)
                if self._closed:
                    self._close(pool)
            else:
                self._discard(line)

    def _idle(self, pool: Pool) -> Line | None:
        while True:
            try:
                line = pool.idle.pop()
            except IndexError:
                return None
            if not line.has_ended():
                return line
            self._discard(line)

    def _new(self) -> Line:
        line = Line(self._info, self._schema)
        self._all.add(line)
        if line.pooled and not self._warned:
            self._warned = True
            _log.warning(
                "a connection pooler such as PgBouncer is in front of PostgreSQL: each process"
                " asks it for new events many times a second, as LISTEN does not work there;"
                " a URL of the server itself does without"
            )
        return line

    def _discard(self, line: Line) -> None:
        if line in self._all:  # else this is a forked child, which abandoned it
            self._all.discard(line)
            line.close()

    def close(self) -> None:
        self._closed = True
        for pool in (self.writers, self.readers, self._followers):
            self._close(pool)

    def _close(self, pool: Pool) -> None:
        while pool.idle:
            with suppress(IndexError):
                self._discard(pool.idle.pop())

    def abandon(self) -> None:
        """Forget everything after a fork."""
        for line in self._all:
            line.abandon()
        self._all = set()
        self._begin()


class Pool:
    """The connections for one purpose.  Each step is one of a list or a set: no lock is needed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.places = Places(MOST)
        self.busy: set[int] = set()  # the threads and greenlets that have a place
        self.idle: list[Line] = []


class Line:
    """One connection, unusable after it was interrupted: its next answer might be an old one's."""

    def __init__(self, info: str, schema: Schema) -> None:
        self._process = os.getpid()
        self._notified = False
        self._listens = False
        self._channel = schema.notify_channel
        self.next_look = 0.0
        """When the outbox is to be looked at again, by the monotonic clock."""
        self.usable = True
        try:
            # Not "with": leaving that would be one statement more.
            self.connection = psycopg.connect(info, autocommit=True)
        except psycopg.Error as error:
            raise BrokerUnavailable(f"PostgreSQL cannot be reached: {_text(error)}") from error
        try:
            self._set_up(schema)
        except psycopg.Error as error:
            self.close()
            raise BrokerUnavailable(f"PostgreSQL refused: {_text(error)}") from error
        except BaseException:
            self.close()
            raise

    def _set_up(self, schema: Schema) -> None:
        connection = self.connection
        connection.add_notify_handler(self._on_notify)
        connection.add_notice_handler(_on_notice)
        (process,) = connection.execute("SELECT pg_backend_pid()").fetchone() or (0,)
        self.pooled = bool(process != connection.info.backend_pid)
        if self.pooled:
            connection.prepare_threshold = None
            connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        else:
            statements = [
                "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED",
                *(f"SET {name} = '{value}'" for name, value in _SETTINGS.items()),
            ]
            connection.execute("; ".join(statements).encode())
        check(connection, schema)

    def call(
        self, statement: str, arguments: Sequence[object], *, writes: bool
    ) -> list[tuple[Any, ...]]:
        """Carry out one statement, as a transaction, and return its rows.

        Raises `NoLog`, `Damaged` and `BrokerUnavailable`.
        """
        ended, self.usable = False, False
        try:
            if self.pooled:
                self.connection.execute(_BEGIN)
            rows = self.connection.execute(statement.encode(), arguments, binary=True).fetchall()
            if self.pooled:
                ended = True
                self.connection.execute("COMMIT")
            self.usable = True
        except psycopg.Error as error:
            if self.connection.closed:
                maybe = writes and (ended or not self.pooled)
                text = f"PostgreSQL did not answer: {_text(error)}"
                raise BrokerUnavailable(text, maybe_stored=maybe) from error
            if self.pooled:
                with suppress(psycopg.Error):
                    self.connection.execute("ROLLBACK")
                    self.usable = True
            else:
                self.usable = True  # an answer, too
            if error.sqlstate in _MISSING:
                raise NoLog(_text(error)) from error
            if error.sqlstate == "SK001":
                raise Damaged(_text(error)) from error
            raise BrokerUnavailable(f"PostgreSQL refused: {_text(error)}") from error
        if os.getpid() != self._process:
            self.usable = False
            raise BrokerUnavailable(
                "this process was forked in the middle of a call, which its parent carries on",
                maybe_stored=writes,
            )
        return rows

    @contextmanager
    def refusals(self) -> Iterator[None]:
        """Have a block of statements raise `BrokerUnavailable`."""
        self.usable = False
        try:
            yield
        except psycopg.Error as error:
            raise BrokerUnavailable(f"PostgreSQL refused: {_text(error)}") from error
        self.usable = True

    @contextmanager
    def locked(self, one: int, other: int) -> Iterator[None]:
        """Hold an advisory lock of two numbers."""
        with self.refusals():
            self.connection.execute("BEGIN")
            self.connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (one, other))
        try:
            yield
        finally:
            with self.refusals():
                self.connection.execute("ROLLBACK")

    def listen(self) -> None:
        """Have it notified of new entries."""
        if self._listens:
            return
        self._listens = True
        if not self.pooled:
            with self.refusals():
                self.connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._channel)))

    def wait(self, wakeup: Wakeup, timeout: float) -> bool:
        """Wait to be notified or woken, or until the timeout; true if it was one of these."""
        if self._notified:
            self._notified = False
            return True
        # Only where there is nothing to hear does the connection not end the wait.
        ready = wakeup.wait(timeout, self.connection.fileno())
        if self.connection.fileno() in ready:
            self._take_notifications()
            self._notified = False
        return bool(ready)

    def _take_notifications(self) -> None:
        self.usable = False
        try:
            self.connection.pgconn.consume_input()
            while self.connection.pgconn.notifies() is not None:
                pass
        except psycopg.Error as error:
            raise BrokerUnavailable(f"PostgreSQL cannot be reached: {_text(error)}") from error
        self.usable = True

    def _on_notify(self, _: object) -> None:
        # While an answer is read: psycopg takes the notification, so it has to be remembered.
        self._notified = True

    def has_ended(self) -> bool:
        try:
            # The first may read the server's last words, and then the second finds the end.
            self.connection.pgconn.consume_input()
            self.connection.pgconn.consume_input()
        except psycopg.Error:
            return True
        return bool(self.connection.closed)

    def close(self) -> None:
        with suppress(psycopg.Error):  # it is gone already
            self.connection.close()

    def abandon(self) -> None:
        """Have a fork's copy of the connection lead nowhere.

        Closing it would end the parent's.  Left open, it would keep the parent's alive.
        """
        with suppress(psycopg.Error, OSError):
            nowhere, other = socketpair()
            other.close()
            os.dup2(nowhere.fileno(), self.connection.fileno(), inheritable=False)
            nowhere.close()
        _forgotten.append(self)


_BEGIN = "; ".join(
    [
        "BEGIN ISOLATION LEVEL READ COMMITTED",
        *(f"SET LOCAL {name} = '{value}'" for name, value in _SETTINGS.items()),
    ]
).encode()

_MISSING = {"3F000", "42P01", "42883", "42704"}  # a schema, a table, a function, a type


def _on_notice(notice: psycopg.errors.Diagnostic) -> None:
    text = notice.message_primary or ""
    if text.startswith("ssekit: "):
        _log.warning("%s", text.removeprefix("ssekit: "))


def _text(error: psycopg.Error) -> str:
    return error.diag.message_primary or str(error).strip().replace("\n", " ")


def _check_waiting() -> None:
    """Raise `BrokerUnavailable` where waiting for PostgreSQL would stop every greenlet."""
    if host.in_event_loop():
        raise BrokerUnavailable(
            "called in gevent's event loop, as by a signal handler, where nothing can wait for"
            " PostgreSQL, so nothing was done; let the handler start a greenlet that calls this"
        )
    if host.under_gevent() and waiting.wait is getattr(waiting, "wait_c", None):
        raise BrokerUnavailable(
            "psycopg was imported before gevent patched this process, so each of its queries"
            " would stop all streams: call gevent.monkey.patch_all() before anything imports"
            " psycopg; under gunicorn, start it without --preload"
        )
