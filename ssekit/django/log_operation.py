"""The operation of a migration that creates the hub's log in PostgreSQL.

Only where the hub lives in the database that is migrated does it do anything.  It runs the same
statements as the hub would at its first use, with the connection and the rights of the migration.
"""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import unquote, urlsplit

from django.db import router
from django.db.migrations.operations.base import Operation

from ssekit.django.configuration import hub, is_in_postgresql, options
from ssekit.errors import BrokerUnavailable

log = logging.getLogger("ssekit.brokers")


class CreateLog(Operation):
    """Create the log; backwards, drop it with all of its events."""

    reduces_to_sql = True
    reversible = True

    def state_forwards(self, app_label: str, state: Any) -> None:
        """No model changes."""

    def database_forwards(
        self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any
    ) -> None:
        """Raises `BrokerUnavailable` if something else has the name of the log."""
        if not _is_here(app_label, schema_editor.connection):
            return
        from ssekit.brokers.contract import Retention
        from ssekit.brokers.postgresql.place import creation
        from ssekit.brokers.postgresql.schema import split_url

        url, schema = split_url(options()["url"])
        here = _Executing(schema_editor.connection)
        if not schema_editor.collect_sql:
            here.execute(*schema.lock())
        statements = creation(here, schema, Retention(), anew=False)
        if statements is None:
            return  # It was created at the first use of a hub.
        schema_editor.execute(statements, params=None)
        role = unquote(urlsplit(url).username or "")
        if role and role != here.execute("SELECT current_user").fetchone()[0]:
            schema_editor.execute(schema.grant_to(role), params=None)

    def database_backwards(
        self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any
    ) -> None:
        """What has no mark of ours is left alone."""
        if _is_here(app_label, schema_editor.connection):
            from ssekit.brokers.postgresql.schema import split_url

            _, schema = split_url(options()["url"])
            schema_editor.execute(schema.remove(), params=None)

    def describe(self) -> str:
        """Return what ``migrate --plan`` says."""
        return "Create the log of ssekit"


class _Executing:
    """Django's connection as `ssekit.brokers.postgresql.place` uses one of psycopg's."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def execute(self, statement: Any, arguments: Any = None) -> Any:
        cursor = self._connection.cursor()
        cursor.execute(statement, arguments)
        return cursor


def _is_here(app_label: str, connection: Any) -> bool:
    if not is_in_postgresql() or not router.allow_migrate(connection.alias, app_label):
        return False
    try:
        return bool(hub.is_in_database_of(connection))
    except BrokerUnavailable as error:
        # Such as in tests of a project, whose databases have other names.
        log.warning("the hub's log is not created by a migration, but at its first use: %s", error)
        return False
