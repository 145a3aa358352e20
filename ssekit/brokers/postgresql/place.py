"""What is where a log is to be: nothing, a log of ours, a damaged one, or something else.

Nothing is changed here that does not have our mark.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import psycopg

from ssekit.brokers.contract import Retention
from ssekit.brokers.postgresql.schema import (
    MARK,
    OURS,
    Schema,
    functions,
    tables,
)
from ssekit.errors import BrokerUnavailable

_OBJECTS = """
SELECT relname, obj_description(c.oid, 'pg_class') FROM pg_class c
    JOIN pg_namespace n ON n.oid = relnamespace
    WHERE nspname = %(schema)s AND relkind IN ('r', 'p', 'v', 'm', 'f')
UNION ALL SELECT proname, obj_description(p.oid, 'pg_proc') FROM pg_proc p
    JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname = %(schema)s
"""

Connection = psycopg.Connection[Any]


class Executes(Protocol):
    """What reads here need of a connection; Django's can be given it."""

    def execute(self, query: Any, params: Any = None, /) -> Any:
        """Carry out a statement, and return a cursor with its rows."""


def check(connection: Connection, schema: Schema) -> None:
    """Raise `BrokerUnavailable` if what has the log's name is not a log of this version."""
    table = f"{schema.quoted}.tip"
    found = connection.execute(
        "SELECT obj_description(oid, 'pg_class') FROM pg_class WHERE oid = to_regclass(%s)",
        (table,),
    ).fetchone()
    if found is not None:
        _check_mark(schema, *found)


def look(connection: Executes, schema: Schema) -> Literal["empty", "log", "damaged"]:
    """Return what is there.  Raises `BrokerUnavailable` for what is not ours."""
    found = connection.execute(_OBJECTS, {"schema": schema.name}).fetchall()
    if not found:
        return "empty"
    for _, mark in found:
        _check_mark(schema, mark)
    if not {name for name, _ in found} >= tables() | functions():
        return "damaged"
    for table in ("log", "tip"):
        if not connection.execute(f"SELECT FROM {schema.quoted}.{table}".encode()).fetchall():
            return "damaged"
    return "log"


def create(connection: Connection, schema: Schema, retention: Retention, *, anew: bool) -> bool:
    """Make a log in an empty place, and with ``anew`` in the place of a damaged one.

    False, and nothing done, if there is one.  Raises `BrokerUnavailable`.
    """
    with connection.transaction():
        connection.execute(*schema.lock())
        statements = creation(connection, schema, retention, anew=anew)
        if statements is not None:
            connection.execute(statements.encode())
    return statements is not None


def creation(
    connection: Executes, schema: Schema, retention: Retention, *, anew: bool
) -> str | None:
    """Return the statements that `create` carries out; None if there is a log.

    Raises `BrokerUnavailable`.
    """
    found = look(connection, schema)
    if found == "log":
        return None
    if found == "damaged" and not anew:
        raise BrokerUnavailable(
            f"a part of the log in the schema {schema.quoted} is missing: the next publish"
            " starts a new one"
        )
    exists = connection.execute(
        "SELECT FROM pg_namespace WHERE nspname = %s", (schema.name,)
    ).fetchone()
    removal = schema.remove() if found == "damaged" else ""
    return removal + schema.create(retention, schema=exists is None)


def _check_mark(schema: Schema, mark: str | None) -> None:
    if mark is None or not mark.startswith(OURS):
        raise BrokerUnavailable(
            f"the schema {schema.quoted} has tables or functions that were not made by ssekit:"
            " choose another name with ?stream="
        )
    if mark != MARK:
        raise BrokerUnavailable(
            f"the log in the schema {schema.quoted} was made by another version of ssekit"
            f" ({mark!r}, and this one's is {MARK!r}): choose another name with ?stream=, or drop"
            " the schema with what it holds"
        )
