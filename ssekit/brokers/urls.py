"""Which broker a URL names; the broker's module is imported only then."""

from __future__ import annotations

from ssekit.brokers.contract import Broker, Retention


def connect(url: str, retention: Retention = Retention()) -> Broker:  # noqa: B008 - frozen
    """Return the broker that the URL names, whose log keeps what ``retention`` says.

    ``memory:`` is this process, ``sqlite:///relative.db`` and ``sqlite:////absolute.db`` every
    process of this machine, ``redis://host:port/db?stream=name``, ``rediss://``, ``unix://`` and
    ``postgresql://user@host:port/db?stream=name`` many machines.  Nothing is opened before the
    first use.  Raises `ValueError` for another URL, and `ImportError` where the package for it,
    redis or psycopg, is missing.
    """
    scheme = url.partition(":")[0] if isinstance(url, str) else ""
    if scheme == "memory":
        from ssekit.brokers.memory.broker import MemoryBroker

        return MemoryBroker.from_url(url, retention)
    if scheme == "sqlite":
        from ssekit.brokers.sqlite.broker import SQLiteBroker

        return SQLiteBroker.from_url(url, retention)
    if scheme in ("redis", "rediss", "unix"):
        from ssekit.brokers.redis.broker import RedisBroker

        return RedisBroker.from_url(url, retention)
    if scheme in ("postgresql", "postgres"):
        from ssekit.brokers.postgresql.broker import PostgreSQLBroker

        return PostgreSQLBroker.from_url(url, retention)
    raise ValueError(
        f"{url!r} names no broker: memory:, sqlite:///file.db, redis://host:port/db,"
        " rediss://, unix:///path/of/socket or postgresql://user@host:port/db"
    )
