"""One connection to PostgreSQL: statements, answers, and notifications.

Each call is one statement that is a transaction by itself, sent once: an error says whether it may
have been carried out, and nothing is sent a second time.

PgBouncer in transaction mode gives each transaction another connection of its own.  It shows by the
number of the process at the other end.  Then settings are made in each transaction, statements are
not prepared, and nothing is heard of LISTEN.
"""

from __future__ import annotations

import logging
import os
from _socket import socketpair
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg import sql

from ssekit.brokers.postgresql.place import check
from ssekit.brokers.postgresql.schema import Schema
from ssekit.errors import BrokerUnavailable
from ssekit.host.wakeup import Wakeup

LONGEST = 10
"""Seconds that a statement may take, waiting for others included."""
_SETTINGS = {
    "statement_timeout": f"{LONGEST}s",
    "idle_in_transaction_session_timeout": f"{LONGEST}s",
    # Plans are made once, while the tables may still be small.  An index is always right.
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "jit": "off",
    # With so few choices left, planning anew for the arguments at hand takes longer than it saves.
    "plan_cache_mode": "force_generic_plan",
}

_log = logging.getLogger("ssekit.brokers")

_forgotten: list[object] = []
"""Connections of a parent process, which a child must not close in its name."""


class NoLog(Exception):
    """Raised if a function or table of the log is missing."""


class Damaged(Exception):
    """Raised if a table of the log has lost what it has to hold."""


class Backlog(Exception):
    """Raised if too many committed events have no place yet for what is asked to be done first."""


class Line:
    """One connection, unusable after it was interrupted: its next answer might be an old one's."""

    def __init__(self, info: str, schema: Schema) -> None:
        self._process = os.getpid()
        self._notified = False
        self._listens = False
        self._ends = False
        self._channel = schema.notify_channel
        self.next_look = 0.0
        """When the outbox is to be looked at again, by the monotonic clock."""
        self.usable = True
        try:
            # Not "with": leaving that would be one statement more.
            self.connection = psycopg.connect(info, autocommit=True)
        except psycopg.Error as error:
            raise BrokerUnavailable(f"PostgreSQL cannot be reached: {text_of(error)}") from error
        try:
            self._set_up(schema)
        except psycopg.Error as error:
            self.close()
            raise BrokerUnavailable(f"PostgreSQL refused: {text_of(error)}") from error
        except BaseException:
            self.close()
            raise

    def _set_up(self, schema: Schema) -> None:
        connection = self.connection
        connection.add_notify_handler(self._on_notify)
        connection.add_notice_handler(self._on_notice)
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

        Raises `NoLog`, `Damaged`, `Backlog` and `BrokerUnavailable`.
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
                text = f"PostgreSQL did not answer: {text_of(error)}"
                raise BrokerUnavailable(text, maybe_stored=maybe) from error
            if self.pooled:
                with suppress(psycopg.Error):
                    self.connection.execute("ROLLBACK")
                    self.usable = True
            else:
                self.usable = True  # an answer, too
            if error.sqlstate in _MISSING or text_of(error).startswith(_DROPPED):
                raise NoLog(text_of(error)) from error
            if error.sqlstate == "SK001":
                raise Damaged(text_of(error)) from error
            if error.sqlstate == "SK003":
                raise Backlog(text_of(error)) from error
            raise BrokerUnavailable(f"PostgreSQL refused: {text_of(error)}") from error
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
            raise BrokerUnavailable(f"PostgreSQL refused: {text_of(error)}") from error
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
            raise BrokerUnavailable(f"PostgreSQL cannot be reached: {text_of(error)}") from error
        self.usable = True

    def _on_notify(self, _: object) -> None:
        # While an answer is read: psycopg takes the notification, so it has to be remembered.
        self._notified = True

    def _on_notice(self, notice: psycopg.errors.Diagnostic) -> None:
        text = notice.message_primary or ""
        if notice.severity_nonlocalized == "FATAL":
            self._ends = True  # libpq reports so what the server says where nothing was asked
        elif text.startswith("ssekit: "):
            _log.warning("%s", text.removeprefix("ssekit: "))

    def has_ended(self) -> bool:
        try:
            # The first may read the server's last words, and then the second finds the end.
            self.connection.pgconn.consume_input()
            self.connection.pgconn.consume_input()
            # Only now is what was read looked at: the last words may have come without the end.
            while self.connection.pgconn.notifies() is not None:
                self._notified = True
        except psycopg.Error:
            return True
        return self._ends or bool(self.connection.closed)

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
_DROPPED = "could not open relation"
"""Of a table that was dropped in the middle of a statement; an internal error, never translated."""


def text_of(error: psycopg.Error) -> str:
    """Return what the server or libpq says, as one line."""
    return error.diag.message_primary or str(error).strip().replace("\n", " ")
