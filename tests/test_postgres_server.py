"""The PostgreSQL server that tests start: it keeps what it acknowledged, and its folder ends."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import psycopg
import pytest

from tests.postgres_server import PostgresServer


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer("max_connections=17") as running:
        yield running


def names(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM people ORDER BY name")]


def test_it_takes_settings_and_does_not_run_as_root(server: PostgresServer) -> None:
    with psycopg.connect(server.url) as connection:
        assert connection.execute("SHOW max_connections").fetchone() == ("17",)
        assert connection.execute("SHOW fsync").fetchone() == ("off",)
    assert server.process is not None
    assert os.stat(f"/proc/{server.process.pid}").st_uid != 0


def test_databases_do_not_share_tables(server: PostgresServer) -> None:
    first, second = server.new_database(), server.new_database()
    with psycopg.connect(first) as connection:
        connection.execute("CREATE TABLE people (name text)")
    assert names(first) == []
    with pytest.raises(psycopg.errors.UndefinedTable):
        names(second)


@pytest.mark.parametrize("end", [PostgresServer.stop, PostgresServer.kill])
def test_what_was_committed_survives_a_stop_and_a_crash_with_open_sessions(
    end: Callable[[PostgresServer], None], server: PostgresServer
) -> None:
    url = server.new_database()
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE people (name text)")
    session = psycopg.connect(url, autocommit=True)
    session.execute("INSERT INTO people VALUES ('Ada')")
    end(server)
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT 1")
    server.start()
    assert names(url) == ["Ada"]


def test_nothing_of_a_closed_server_remains() -> None:
    with PostgresServer() as server:
        assert server.folder.exists()
        process = server.process
    assert not server.folder.exists()
    assert process is not None
    assert process.poll() == 0
