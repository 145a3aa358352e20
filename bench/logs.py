"""A new log of each kind, with its server where it needs one, and how much room it takes."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

from bench.processes import BenchError, find_program, proportional_set_size
from bench.results import Results
from bench.settings import Settings
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from tests.postgres_server import PostgresServer

KINDS = ("memory", "sqlite", "redis", "postgresql")


class NewLog(NamedTuple):
    """``size`` returns the bytes that it takes: of memory, of files, or of tables."""

    url: str
    size: Callable[[], int]


def measure_each(
    settings: Settings, results: Results, bench: str, measure: Callable[[str], None]
) -> None:
    """Measure each kind of log that is wanted; a server that is missing is noted."""
    for kind in filter(settings.wants, KINDS):
        try:
            measure(kind)
        except BenchError as error:
            results.note(bench, f"{kind}: {error}")


@contextmanager
def redis_server(*options: str) -> Iterator[RedisServer]:
    """Run a server of its own; raises BenchError where there is none."""
    program = find_program("redis-server")
    if program is None:
        raise BenchError("redis-server is not installed")
    with tempfile.TemporaryDirectory(prefix="ssekit-bench-") as folder:
        server = RedisServer(Path(folder), *options, program=program)
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def postgres_server(*, durable: bool = False) -> Iterator[PostgresServer]:
    """Run a server of its own; raises BenchError where there is none."""
    from tests.postgres_server import PostgresServer, is_installed

    if not is_installed():
        raise BenchError("postgresql is not installed")
    with PostgresServer(durable=durable) as server:
        yield server


@contextmanager
def new_log(kind: str, *, durable: bool = False) -> Iterator[NewLog]:
    """Make a log that is gone after the block; raises BenchError where its server is missing.

    ``durable``: a commit in PostgreSQL waits for the disk, as everywhere but in tests.
    """
    if kind == "memory":
        yield NewLog("memory:", lambda: proportional_set_size(os.getpid()))
    elif kind == "sqlite":
        with tempfile.TemporaryDirectory(prefix="ssekit-bench-") as folder:
            files = Path(folder)
            yield NewLog(
                f"sqlite:///{folder}/hub.db",
                lambda: sum(path.stat().st_size for path in files.glob("hub.db*")),
            )
    elif kind == "redis":
        with redis_server("--appendonly", "no") as redis:
            yield NewLog(f"{redis.url}?stream={uuid4()}", lambda: _used_memory(redis))
    else:
        with postgres_server(durable=durable) as postgres:
            yield NewLog(postgres.url, lambda: _size_of_database(postgres))


def _used_memory(redis: RedisServer) -> int:
    found = re.search(rb"used_memory:(\d+)", redis.command("INFO", "memory"))
    if not found:
        raise BenchError("redis does not say how much memory it uses")
    return int(found[1])


def _size_of_database(postgres: PostgresServer) -> int:
    import psycopg

    with psycopg.connect(postgres.url) as connection:
        row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
        return int(row[0]) if row else 0
