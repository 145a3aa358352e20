"""Publishing what a transaction has changed, once it has."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.db import transaction

from ssekit.django.configuration import hub
from ssekit.wire import Event

_databases: dict[tuple[str, str], bool] = {}
"""By alias and name of a database, whether the hub's log is in it."""


def publish_on_commit(
    channel: str, data: Any, event: str | None = None, *, using: str | None = None, **options: Any
) -> None:
    """Publish an event in the project's hub when the current transaction commits.

    Outside a transaction that is at once.  A transaction that is rolled back publishes nothing.

    Where the hub is ``postgresql:``, in the same database, the event is part of the transaction:
    nothing that dies at any time loses it.  With any other hub it is published after the commit,
    and lost if the process dies in between.

    ``using`` names the database.  The other options are those of `Hub.publish`.

    Raises `InvalidEvent` at once, so that a transaction is not committed whose event the format
    cannot carry, and in the same database what `Hub.publish` raises with a connection.  Elsewhere,
    what publishing raises later is raised to the caller of the commit: with ``robust=True``, it is
    logged instead.
    """
    robust = options.pop("robust", False)
    Event(data, event, retry=options.get("retry")).encode()
    connection = transaction.get_connection(using)
    in_transaction = connection.in_atomic_block or not connection.get_autocommit()
    if in_transaction and _has_log(connection):
        hub.publish(channel, data, event, connection=connection, **options)
    else:
        publish = partial(hub.publish, channel, data, event, **options)
        transaction.on_commit(publish, using=using, robust=robust)


def _has_log(connection: Any) -> bool:
    # Django's tests use the same alias for another database.
    database = (connection.alias, str(connection.settings_dict["NAME"]))
    if database not in _databases:
        _databases[database] = hub.is_in_database_of(connection)
    return _databases[database]
