"""Which broker a URL names; the broker's module is imported only then."""

from __future__ import annotations

from ssekit.brokers.contract import Broker


def connect(url: str, history: int = 1000) -> Broker:
    """Return the broker that the URL names, which keeps the last ``history`` events.

    ``memory:`` is this process, ``sqlite:///relative.db`` and ``sqlite:////absolute.db`` every
    process of this machine, ``redis://host:port/db?stream=name``, ``rediss://`` and ``unix://``
    many machines.  Nothing is opened before the first use.  Raises `ValueError` for another URL or
    a history below 1, and `ImportError` where the redis package is missing.
    """
    if not isinstance(history, int) or isinstance(history, bool) or history < 1:
        raise ValueError(f"history must be a whole number of events from 1 up, not {history!r}")
    scheme = url.partition(":")[0] if isinstance(url, str) else ""
    if scheme == "memory":
        from ssekit.brokers.memory import MemoryBroker

        return MemoryBroker.from_url(url, history)
    if scheme == "sqlite":
        from ssekit.brokers.sqlite.broker import SQLiteBroker

        return SQLiteBroker.from_url(url, history)
    if scheme in ("redis", "rediss", "unix"):
        from ssekit.brokers.redis.broker import RedisBroker

        return RedisBroker.from_url(url, history)
    raise ValueError(
        f"{url!r} names no broker: memory:, sqlite:///file.db, redis://host:port/db,"
        " rediss:// or unix:///path/of/socket"
    )
