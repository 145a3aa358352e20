"""One statement in a transaction of the application's own, whatever its connection is.

It may be psycopg's (3, or 2 if Django or SQLAlchemy use that), Django's, or SQLAlchemy's, or an
SQLAlchemy session.  They are known by what they can do; none of these packages is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

_AUTOCOMMIT = (
    "the connection is in autocommit and not in a transaction, so the event would be published"
    " whatever happens next: publish inside of one ({}), or without connection="
)
_NO_CONNECTION = (
    "{} is no connection that can publish: give a psycopg connection, django.db.connection, or an"
    " SQLAlchemy session or connection"
)


def enqueue(
    connection: Any, statement: str, arguments: tuple[object, ...], committed: Callable[[], None]
) -> tuple[Any, ...]:
    """Carry out the statement and return its row.

    ``committed`` is called after the commit, where the package says when that is.  Raises
    `ValueError` for a connection in autocommit outside a transaction, `TypeError` for what is no
    connection.
    """
    if hasattr(connection, "in_atomic_block"):
        return _django(connection, statement, arguments, committed)
    if hasattr(connection, "get_bind") and hasattr(connection, "begin_nested"):
        return _session(connection, statement, arguments, committed)
    if hasattr(connection, "exec_driver_sql"):
        return _sqlalchemy(connection, statement, arguments)
    if hasattr(connection, "cursor") and hasattr(connection, "autocommit"):
        return _plain(connection, statement, arguments)
    raise TypeError(_NO_CONNECTION.format(type(connection).__name__))


def sees_lock(connection: Any, one: int, other: int) -> bool:
    """Return whether the connection's database is one where an advisory lock is held.

    Raises `TypeError` for what is no connection.
    """
    vendor = getattr(connection, "vendor", "postgresql")  # Django's
    if vendor != "postgresql":
        return False
    if hasattr(connection, "get_bind"):
        connection = connection.connection()
    if hasattr(connection, "exec_driver_sql"):
        if connection.dialect.name != "postgresql":
            return False
        return bool(connection.exec_driver_sql(_LOCK, (one, other)).scalar_one())
    if not hasattr(connection, "cursor"):
        raise TypeError(_NO_CONNECTION.format(type(connection).__name__))
    with connection.cursor() as cursor:
        cursor.execute(_LOCK, (one, other))
        return bool(cursor.fetchone()[0])


_LOCK = """SELECT EXISTS (
    SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND objid = %s
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
)"""


def _django(
    connection: Any, statement: str, arguments: tuple[object, ...], committed: Callable[[], None]
) -> tuple[Any, ...]:
    if connection.vendor != "postgresql":
        raise ValueError(f"the connection is to {connection.vendor}, and the hub's to PostgreSQL")
    if not connection.in_atomic_block and connection.get_autocommit():
        raise ValueError(_AUTOCOMMIT.format("with transaction.atomic()"))
    with connection.cursor() as cursor:
        cursor.execute(statement, arguments)
        row: tuple[Any, ...] = cursor.fetchone()
    connection.on_commit(committed)
    return row


def _session(
    session: Any, statement: str, arguments: tuple[object, ...], committed: Callable[[], None]
) -> tuple[Any, ...]:
    row = _sqlalchemy(session.connection(), statement, arguments)
    session = getattr(session, "registry", lambda: session)()  # of a scoped_session
    if _PENDING not in session.info:
        event = sys.modules["sqlalchemy.event"]
        session.info[_PENDING] = committed
        if _LISTENS not in session.info:
            session.info[_LISTENS] = True
            event.listen(session, "after_commit", _after_commit)
            event.listen(session, "after_rollback", _after_rollback)
    return row


def _after_commit(session: Any) -> None:
    if not session.in_nested_transaction():  # else it is only a savepoint that is released
        committed = session.info.pop(_PENDING, None)
        if committed is not None:
            committed()


def _after_rollback(session: Any) -> None:
    if not session.in_nested_transaction():
        session.info.pop(_PENDING, None)


_PENDING = "ssekit: to be called after the commit"
_LISTENS = "ssekit: is told of commits"


def _sqlalchemy(connection: Any, statement: str, arguments: tuple[object, ...]) -> tuple[Any, ...]:
    if connection.dialect.name != "postgresql":
        name = connection.dialect.name
        raise ValueError(f"the connection is to {name}, and the hub's to PostgreSQL")
    if getattr(connection.connection.dbapi_connection, "autocommit", False):
        raise ValueError(_AUTOCOMMIT.format("an engine without AUTOCOMMIT"))
    return tuple(connection.exec_driver_sql(statement, arguments).one())


def _plain(connection: Any, statement: str, arguments: tuple[object, ...]) -> tuple[Any, ...]:
    if connection.autocommit and not _in_transaction(connection):
        raise ValueError(_AUTOCOMMIT.format("with connection.transaction()"))
    with connection.cursor() as cursor:
        executed = cursor.execute(statement, arguments)
        if hasattr(executed, "__await__"):
            executed.close()
            raise TypeError("an asynchronous connection cannot publish: give a plain one")
        row: tuple[Any, ...] = cursor.fetchone()
    return row


def _in_transaction(connection: Any) -> bool:
    if hasattr(connection, "info"):  # psycopg 3, and 2.8
        return int(connection.info.transaction_status) != 0
    return int(connection.get_transaction_status()) != 0
