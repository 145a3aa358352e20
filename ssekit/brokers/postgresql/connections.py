"""All connections of one process to one database.

There is one that follows, and a few each for what writes and for what reads.  This knows no
statement and no entry.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from typing import Any

from ssekit import host
from ssekit.brokers.pool import Pool
from ssekit.errors import BrokerUnavailable, HubClosed

try:
    import psycopg
    from psycopg import conninfo, waiting
except ImportError as error:
    raise ImportError(
        "postgresql: URLs need the psycopg package: pip install 'ssekit[postgresql]'",
        name="psycopg",
    ) from error

from ssekit.brokers.postgresql.line import LONGEST, Line, text_of
from ssekit.brokers.postgresql.schema import Schema

MOST = 3  # connections for what writes, and as many for what reads
_TIMEOUT = 5  # seconds to connect
_OPTIONS: dict[str, Any] = {
    "connect_timeout": _TIMEOUT,
    "application_name": "ssekit",
    "target_session_attrs": "read-write",  # of several hosts, the one that is no standby
    # A connection whose other end has vanished is noticed after 4 to 9 seconds.
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
    "tcp_user_timeout": 4000,
}

_log = logging.getLogger("ssekit.brokers")

Lent = AbstractContextManager[Line]


class Connections:
    """Opens nothing before the first use.  Raises `ValueError` for an invalid URL."""

    def __init__(self, url: str, schema: Schema) -> None:
        try:
            given = conninfo.conninfo_to_dict(url)
        except psycopg.ProgrammingError as error:
            # Not the URL whole: it may have a password.
            raise ValueError(f"this is not a valid PostgreSQL URL: {text_of(error)}") from error
        self._info = conninfo.make_conninfo("", **{**_OPTIONS, **given})
        self._schema = schema
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        self.pooled = False
        """Whether a pooler is known to be in front of the server."""
        self._writers = self._pool("write", MOST)
        self._readers = self._pool("read", MOST)
        self._followers = self._pool("follow", None)  # a second one only if two follow at once

    def _pool(self, purpose: str, most: int | None) -> Pool[Line]:
        return Pool(
            f"to PostgreSQL that {purpose}",
            self._open_one,
            most=most,
            patience=LONGEST,
            threaded=True,
        )

    def writer(self) -> Lent:
        """Lend a connection for what writes; waits for one if all are in use."""
        return self._lend(self._writers)

    def reader(self) -> Lent:
        """Lend a connection for what reads."""
        return self._lend(self._readers)

    def follower(self) -> Lent:
        """Lend the connection that follows."""
        return self._lend(self._followers)

    def maintain(self, statement: str) -> None:
        """Carry out a statement that may take long and is no part of a transaction."""
        self.check_open()
        _check_waiting()
        line = self._open_one()
        try:
            with line.refusals():
                if not line.pooled:
                    line.connection.execute("SET statement_timeout = 0")
                line.connection.execute(statement.encode())
        finally:
            line.close()

    def check_open(self) -> None:
        """Raise `HubClosed` after `close`."""
        if self._closed:
            raise HubClosed("the hub is closed")

    def close(self) -> None:
        """Close each connection once it is not in use."""
        self._closed = True
        for pool in self._pools():
            pool.close()

    def abandon(self) -> None:
        """Forget everything after a fork."""
        for pool in self._pools():
            pool.abandon()
        self._begin()

    def _pools(self) -> tuple[Pool[Line], ...]:
        return self._writers, self._readers, self._followers

    def _lend(self, pool: Pool[Line]) -> Lent:
        self.check_open()
        _check_waiting()
        return pool.lend()

    def _open_one(self) -> Line:
        line = Line(self._info, self._schema)
        if line.pooled and not self.pooled:
            self.pooled = True
            _log.warning(
                "a connection pooler such as PgBouncer is in front of PostgreSQL: new events are"
                " asked for many times a second, as LISTEN does not work there; a URL of the"
                " server itself does without"
            )
        return line


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
