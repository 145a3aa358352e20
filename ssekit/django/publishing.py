"""Publishing what a transaction has changed, once it has."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.db import transaction

from ssekit.django.configuration import hub
from ssekit.wire import Event


def publish_on_commit(
    channel: str, data: Any, event: str | None = None, *, using: str | None = None, **options: Any
) -> None:
    """Publish an event in the project's hub when the current transaction commits.

    Outside a transaction that is at once.  A transaction that is rolled back publishes nothing.
    The process may die between the commit and the publish; where that must lose nothing, use a
    ``postgresql:`` hub in the same database and ``hub.publish(..., connection=connection)``.

    ``using`` names the database.  The other options are those of `Hub.publish`.

    Raises `InvalidEvent` at once, so that a transaction is not committed whose event the format
    cannot carry.  What publishing raises later is raised to the caller of the commit: with
    ``robust=True``, it is logged instead.
    """
    robust = options.pop("robust", False)
    Event(data, event, retry=options.get("retry")).encode()
    publish = partial(hub.publish, channel, data, event, **options)
    transaction.on_commit(publish, using=using, robust=robust)
