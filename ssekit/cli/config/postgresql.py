"""The statements that make a log in PostgreSQL, for those whose application may not make tables."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ssekit.brokers.contract import Retention
from ssekit.brokers.postgresql.schema import Schema
from ssekit.cli.config.site import Refused

_ROLE = re.compile("[A-Za-z_][A-Za-z0-9_$-]{0,62}")


@dataclass(frozen=True)
class Log:
    """A log in a database.

    ``stream``: its name, which is its schema's.  ``role``: who is to use it, if not its owner.
    """

    stream: str = "ssekit"
    role: str = ""

    def __post_init__(self) -> None:
        try:
            Schema(self.stream)
        except ValueError as error:
            raise Refused(str(error)) from error
        if self.role and not _ROLE.fullmatch(self.role):
            raise Refused(f"--role {self.role!r}: a name has letters, digits, _, $ and -")


def postgresql(log: Log) -> str:
    """Return the statements, in one transaction, for psql."""
    schema = Schema(log.stream)
    lines = [
        f"-- The log postgresql://user@host/database?stream={log.stream} of ssekit, for psql.",
        "BEGIN;",
        schema.create(Retention()),
    ]
    if log.role:
        lines.append(schema.grant_to(log.role))
    return "\n".join([*lines, "COMMIT;", ""])
