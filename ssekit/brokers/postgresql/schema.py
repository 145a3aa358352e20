"""The SQL of a log: its tables and functions, in a schema of their own.

The files in ``sql/`` say ``ssekit`` for the schema's name; here it is replaced.  Everything that is
made has a comment, `MARK`, by which it is known to be ours and of which version.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode

from ssekit.brokers.contract import Retention

VERSION = 1
"""The version of the tables and functions."""

MARK = f"ssekit log {VERSION}"
OURS = "ssekit log "
"""What the comments of all versions begin with."""

CREATING = 1936942955
"""The first key of our advisory locks: "ssek"."""

_TABLES = """
    SELECT 'TABLE' AS kind, oid::regclass::text AS name FROM pg_class
    WHERE relnamespace = 'SCHEMA'::regnamespace AND relkind = 'r'"""
_TYPES = """
    SELECT 'TYPE' AS kind, oid::regtype::text AS name FROM pg_type
    WHERE typnamespace = 'SCHEMA'::regnamespace AND typname IN ('answer', 'rules')"""
_FUNCTIONS = """
    SELECT 'FUNCTION' AS kind, oid::regprocedure::text AS name FROM pg_proc
    WHERE pronamespace = 'SCHEMA'::regnamespace"""

_FOLDER = Path(__file__).parent / "sql"
_NAME = re.compile("[A-Za-z0-9_][A-Za-z0-9_-]{0,49}")


@cache
def _source() -> str:
    parts = ("tables", "common", "write", "leases", "read")
    return "\n".join((_FOLDER / f"{part}.sql").read_text("utf-8") for part in parts)


@cache
def tables() -> frozenset[str]:
    return frozenset(re.findall(r"(?m)^CREATE (?:UNLOGGED )?TABLE ssekit\.(\w+)", _source()))


@cache
def functions() -> frozenset[str]:
    return frozenset(re.findall(r"(?m)^CREATE FUNCTION ssekit\.(\w+)", _source()))


def split_url(url: str) -> tuple[str, Schema]:
    """Return the URL of the database, and the schema that ``?stream=`` stands for."""
    base, _, query = url.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    schema = Schema(options.pop("stream", "ssekit"))
    return f"{base}?{urlencode(options, quote_via=quote)}", schema


class Schema:
    """The schema that a log's name stands for."""

    def __init__(self, name: str) -> None:
        if not _NAME.fullmatch(name) or name.lower().startswith("pg_"):
            raise ValueError(
                f"stream={name!r}: the name becomes that of a schema, so it has up to 50 letters,"
                " digits, _ and -, and does not begin with - or pg_"
            )
        self.name = name
        self.quoted = f'"{name}"'
        self.notify_channel = f"{self.quoted}.log"

    def create(self, retention: Retention, *, schema: bool = True) -> str:
        """Return the statements that make the log, to be run in one transaction.

        ``schema``: they make the schema too.
        """
        return "\n".join(self._statements(retention, schema))

    def _statements(self, retention: Retention, schema: bool) -> Iterator[str]:
        if schema:
            yield f"CREATE SCHEMA {self.quoted};\n"
        yield _source().replace("ssekit.", f"{self.quoted}.")
        age = "NULL" if retention.max_age is None else repr(float(retention.max_age))
        yield f"INSERT INTO {self.quoted}.log VALUES"
        yield (
            f"    (gen_random_uuid(), {retention.history}, {retention.capacity},"
            f" {retention.max_keys}, {age});"
        )
        yield f"INSERT INTO {self.quoted}.tip VALUES"
        clock = f"floor({self.quoted}.clock() * 1000)"
        yield f"    ({clock}, {self.quoted}.mark(), 0, 0, 0, 0, 0, '');"
        everything = " UNION ALL".join((_TABLES, _TYPES, _FUNCTIONS))
        yield self._each(f"COMMENT ON %s %s IS ''{MARK}''", everything)

    def lock(self) -> tuple[str, tuple[int, str]]:
        """Return the statement, with its arguments, that lets one transaction at a time create."""
        return "SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (CREATING, self.name)

    def grant_to(self, role: str) -> str:
        """Return the statements that let a role use the log."""
        quoted = '"{}"'.format(role.replace('"', '""'))
        return (
            f"GRANT USAGE ON SCHEMA {self.quoted} TO {quoted};\n"
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES"
            f" IN SCHEMA {self.quoted} TO {quoted};\n"
            f"GRANT USAGE, UPDATE ON ALL SEQUENCES IN SCHEMA {self.quoted} TO {quoted};"
        )

    def remove(self) -> str:
        """Return the statements that remove everything of ours, and nothing else."""
        ours = "\n    AND obj_description(oid, '{}') LIKE " + f"'{OURS}%'"
        return "\n".join(
            self._each("DROP %s %s", objects + ours.format(catalog))
            for objects, catalog in (
                (_FUNCTIONS, "pg_proc"),
                (_TABLES, "pg_class"),
                (_TYPES, "pg_type"),
            )
        )

    def _each(self, statement: str, objects: str) -> str:
        """Return a block that runs a statement for each of some objects."""
        return (
            "DO $do$ DECLARE o record; BEGIN\n"
            f"    FOR o IN {objects.replace('SCHEMA', self.quoted)}\n    LOOP\n"
            f"        EXECUTE format('{statement}', o.kind, o.name);\n"
            "    END LOOP;\nEND $do$;\n"
        )
