"""What publishing in PostgreSQL costs, beside a bare INSERT, and how soon a reader has it.

tests/test_postgresql_broker.py sees that it runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import NamedTuple

import psycopg

from ssekit.brokers import connect
from ssekit.brokers.postgresql.broker import PostgreSQLBroker

BODY = b"data: " + b"x" * 200 + b"\n"


class Rates(NamedTuple):
    """Transactions a second."""

    bare: float  # an INSERT with its commit, by one connection
    publish: float  # one thread
    publish_8: float  # eight threads
    bare_and_event: float  # an INSERT and an event, in one transaction


class Delays(NamedTuple):
    """Seconds from a commit to a reader that follows, the medians."""

    direct: float  # a publish by itself, which ssekit sees
    unseen: float  # a transaction that publishes, whose commit ssekit does not see


def rates(url: str, *, seconds: float = 3.0) -> Rates:
    """Measure each for some seconds, in a database that is empty."""
    broker = _broker(url)
    broker.tip()
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE bare (id bigserial PRIMARY KEY, body bytea)")
        connection.commit()

        def insert() -> None:
            connection.execute("INSERT INTO bare (body) VALUES (%s)", (BODY,))
            connection.commit()

        def insert_and_publish() -> None:
            connection.execute("INSERT INTO bare (body) VALUES (%s)", (BODY,))
            broker.append_in(connection, "news", BODY)
            connection.commit()

        def publish() -> None:
            broker.append("news", BODY)

        bare, alone = _rate(insert, seconds), _rate(publish, seconds)
        with ThreadPoolExecutor(8) as pool:
            together = sum(pool.map(lambda _: _rate(publish, seconds), range(8)))
        found = Rates(bare, alone, together, _rate(insert_and_publish, seconds))
    broker.close()
    return found


def delays(url: str, *, count: int = 100) -> Delays:
    broker = _broker(url)
    with psycopg.connect(url) as connection, ThreadPoolExecutor(1) as pool:

        def transaction() -> None:
            broker.append_in(connection, "news", BODY)
            connection.commit()

        def delay(publish: Callable[[], object]) -> float:
            cursor = broker.tip()
            arrived = pool.submit(lambda: (broker.follow(cursor, 10), time.perf_counter()))
            time.sleep(0.05)  # it listens by then
            publish()
            committed = time.perf_counter()
            return arrived.result()[1] - committed

        direct = median(delay(lambda: broker.append("news", BODY)) for _ in range(count))
        unseen = median(delay(transaction) for _ in range(count))
    broker.close()
    return Delays(direct, unseen)


def _broker(url: str) -> PostgreSQLBroker:
    broker = connect(url)
    assert isinstance(broker, PostgreSQLBroker)
    return broker


def _rate(call: Callable[[], object], seconds: float) -> float:
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        call()
        done += 1
    return done / (time.perf_counter() - started)
