"""What is special to ``postgresql:``: transactions, servers that fail, poolers, and databases.

The contract itself is tested in test_brokers.py and the other tests of brokers.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy
import sqlalchemy.orm

from ssekit import BrokerUnavailable, Event, Hub, InvalidEvent
from ssekit.brokers import HistoryLost, Retention, connect, parse_id
from ssekit.brokers.postgresql import following, line
from ssekit.brokers.postgresql.broker import PostgreSQLBroker
from ssekit.errors import ChannelFinished
from tests.cable import cable
from tests.clients import Client
from tests.commands import program
from tests.components import need
from tests.crowd import Viewer
from tests.logs import END, body, data, everything, followed, run, state
from tests.ports import free_port
from tests.postgres_server import PostgresServer
from tests.servers import ROOT, gunicorn
from tests.waiting import until, until_asleep

Opener = Callable[..., PostgreSQLBroker]
FINISHED = "finished"


@pytest.fixture
def database(postgres_server: PostgresServer) -> str:
    return postgres_server.new_database()


@pytest.fixture
def open_one(database: str) -> Iterator[Opener]:
    with ExitStack() as stack:

        def open_one(url: str = database, **retention: Any) -> PostgreSQLBroker:
            broker = connect(url, Retention(**retention))
            assert isinstance(broker, PostgreSQLBroker)
            stack.callback(broker.close)
            return broker

        yield open_one


@pytest.fixture
def engine(database: str) -> Iterator[sqlalchemy.Engine]:
    made = sqlalchemy.create_engine(database.replace("postgresql:", "postgresql+psycopg:"))
    yield made
    made.dispose()


@pytest.fixture
def broker(open_one: Opener) -> PostgreSQLBroker:
    return open_one()


@contextmanager
def started(module: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program of tests/apps, and kill it in the end."""
    command = [sys.executable, "-m", f"tests.apps.{module}", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


class TestTransactions:
    def test_a_commit_publishes_once_and_a_rollback_nothing(
        self, broker: PostgreSQLBroker, database: str
    ) -> None:
        start = broker.tip()
        with psycopg.connect(database) as connection:
            broker.append_in(connection, "news", body("rolled back"))
            connection.rollback()
            broker.append_in(connection, "news", body("one"))
            broker.append_in(connection, "fx", body("value"), key="k")
            broker.append_in(connection, "news", body("typing"), passing=True)
            assert broker.tip() == start
            connection.commit()
        entries = followed(broker, start, 3)
        assert data(entries) == ["one", "value", "typing"]
        assert [(entry.channel, entry.key, entry.passing) for entry in entries] == [
            ("news", None, False),
            ("fx", "k", False),
            ("news", None, True),
        ]
        assert broker.history(["news"], 10, None) == entries[:1]
        assert broker.opening(["fx"], 0).state == entries[1:2]

    def test_a_hub_publishes_in_a_transaction_and_returns_the_event_without_an_id(
        self, database: str
    ) -> None:
        with Hub(database) as hub:
            events = hub.subscribe("news", timeout=10)
            assert next(events).event == "stream-open"
            with psycopg.connect(database) as connection:
                sent = hub.publish("news", {"n": 1}, "step", connection=connection)
                assert sent.id is None
            came = next(events)
            assert came.id is not None
            assert came == Event(sent.data, "step", id=came.id)
            with psycopg.connect(database) as connection, pytest.raises(InvalidEvent):
                hub.publish("news", "x", "stream-open", connection=connection)
        with Hub() as memory, pytest.raises(ValueError, match="postgresql:"):
            memory.publish("news", "x", connection=connection)

    def test_what_is_committed_is_in_the_log_for_the_next_reader(
        self, broker: PostgreSQLBroker, database: str
    ) -> None:
        start = broker.tip()
        with psycopg.connect(database) as connection:
            broker.append_in(connection, "news", body("one"))
        assert data(broker.history(["news"], 10, None)) == ["one"]
        with psycopg.connect(database) as connection:
            broker.append_in(connection, "news", body("two"))
        assert parse_id(broker.tip())[1] == parse_id(start)[1] + 2
        with psycopg.connect(database) as connection:
            broker.append_in(connection, "news", body("three"))
        # A publish never overtakes what its own caller has committed.
        broker.append("news", body("four"))
        assert data(everything(broker, start, "news")) == ["one", "two", "three", "four"]

    def test_a_viewer_gets_what_was_committed_unseen_within_the_time_of_a_look(
        self, broker: PostgreSQLBroker, database: str
    ) -> None:
        cursor = broker.tip()
        took = []
        with psycopg.connect(database) as connection, ThreadPoolExecutor() as pool:
            for n in range(15):
                waiting = pool.submit(broker.follow, cursor, 10)
                until_asleep(pool)
                broker.append_in(connection, "news", body(n))
                connection.commit()
                committed = time.perf_counter()
                entries, cursor = waiting.result()
                took.append(time.perf_counter() - committed)
                assert data(entries) == [str(n)]
        # On an idle machine the median is 14 ms; this one runs other tests as well.
        assert sorted(took)[7] < 0.1, took

    @pytest.mark.parametrize(
        ("when", "expected"), [("before", ["direct"]), ("after", ["after", "direct"])]
    )
    def test_what_a_killed_process_had_committed_is_published_and_nothing_else(
        self, broker: PostgreSQLBroker, database: str, when: str, expected: list[str]
    ) -> None:
        start = broker.tip()
        with started("killed_in_transaction", database, when) as process:
            assert process.wait(30) == -signal.SIGKILL
        broker.append("news", body("direct"))
        assert data(everything(broker, start, "news")) == expected

    def test_a_connection_in_autocommit_is_refused_outside_a_transaction(
        self, broker: PostgreSQLBroker, database: str, engine: sqlalchemy.Engine
    ) -> None:
        start = broker.tip()
        with (
            psycopg.connect(database, autocommit=True) as plain,
            engine.execution_options(isolation_level="AUTOCOMMIT").connect() as theirs,
        ):
            for connection in (plain, theirs):
                with pytest.raises(ValueError, match="autocommit"):
                    broker.append_in(connection, "news", body("refused"))
            with plain.transaction():
                broker.append_in(plain, "news", body("in a transaction"))
        broker.tip()  # puts it into the log
        assert data(everything(broker, start, "news")) == ["in a transaction"]

    def test_what_is_no_connection_to_the_database_is_refused(
        self, broker: PostgreSQLBroker, postgres_server: PostgresServer
    ) -> None:
        with pytest.raises(TypeError, match="no connection"):
            broker.append_in(object(), "news", body("refused"))
        sqlite = sqlalchemy.create_engine("sqlite://")
        with sqlite.connect() as connection, pytest.raises(ValueError, match="sqlite"):
            broker.append_in(connection, "news", body("refused"))
        sqlite.dispose()
        other = connect(elsewhere := postgres_server.new_database())
        other.tip()
        other.close()
        with (
            psycopg.connect(elsewhere) as connection,
            pytest.raises(ValueError, match="another database"),
        ):
            broker.append_in(connection, "news", body("refused"))

    def test_it_is_known_which_connections_are_to_the_database_of_the_log(
        self, broker: PostgreSQLBroker, database: str, postgres_server: PostgresServer
    ) -> None:
        for url, expected in ((database, True), (postgres_server.new_database(), False)):
            engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
            with psycopg.connect(url) as plain, sqlalchemy.orm.Session(engine) as session:
                assert broker.is_in_database_of(plain) is expected
                assert broker.is_in_database_of(session) is expected
                assert broker.is_in_database_of(session.connection()) is expected
            engine.dispose()
        sqlite = sqlalchemy.create_engine("sqlite://")
        with sqlite.connect() as connection:
            assert not broker.is_in_database_of(connection)
        sqlite.dispose()
        with pytest.raises(TypeError, match="no connection"):
            broker.is_in_database_of(object())

    def test_django_publishes_on_commit_and_the_viewer_gets_it_at_once(self, database: str) -> None:
        # Nobody has looked at the outbox: the hook on the commit has given them their places.
        assert run("tests.apps.django_publishing", database).splitlines() == [
            "True",
            "after a rollback",
            "before the commit",
            "after the commit: one: two",
        ]

    @pytest.mark.parametrize("kind", ["session", "scoped_session"])
    def test_a_session_of_sqlalchemys_publishes_on_commit_and_the_viewer_gets_it_at_once(
        self, broker: PostgreSQLBroker, engine: sqlalchemy.Engine, kind: str
    ) -> None:
        maker = sqlalchemy.orm.sessionmaker(engine)
        session: Any = maker() if kind == "session" else sqlalchemy.orm.scoped_session(maker)
        start = broker.tip()
        broker.append_in(session, "news", body("rolled back"))
        session.rollback()
        broker.append_in(session, "news", body("one"))
        with session.begin_nested():
            broker.append_in(session, "news", body("two"))
        savepoint = session.begin_nested()
        broker.append_in(session, "news", body("rolled back, too"))
        savepoint.rollback()
        assert data(broker.read(["news"], start, 10)[0]) == []
        session.commit()
        # Nobody has looked: the hook has given it its place.
        assert data(broker.read(["news"], start, 10)[0]) == ["one", "two"]
        broker.append_in(session, "news", body("three"))
        session.commit()
        session.close()
        assert data(broker.read(["news"], start, 10)[0]) == ["one", "two", "three"]

    def test_a_connection_of_sqlalchemys_publishes_with_its_transaction(
        self, broker: PostgreSQLBroker, engine: sqlalchemy.Engine
    ) -> None:
        start = broker.tip()
        with engine.connect() as connection:
            broker.append_in(connection, "news", body("one"))
            connection.commit()
            broker.append_in(connection, "news", body("rolled back"))
        broker.tip()  # puts it into the log
        assert data(everything(broker, start, "news")) == ["one"]

    def test_any_isolation_of_the_transaction_will_do(
        self, broker: PostgreSQLBroker, database: str
    ) -> None:
        start = broker.tip()
        with psycopg.connect(database) as connection:
            connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
            broker.append_in(connection, "news", body("one"))
            broker.append("news", body("direct"))
        assert data(followed(broker, start, 2)) == ["direct", "one"]

    def test_what_is_committed_into_a_finished_channel_is_dropped_with_a_warning(
        self, broker: PostgreSQLBroker, database: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        start = broker.tip()
        with psycopg.connect(database) as connection:
            broker.append_in(connection, "work", body("too late"))
            broker.append_in(connection, "news", body("one"))
            end = broker.finish("work", END, FINISHED)
            with pytest.raises(ChannelFinished) as raised:
                broker.append_in(connection, "work", body("refused"))
            assert raised.value.reason == FINISHED
        one = broker.append("news", body("two"))
        assert broker.follow(start, 5)[0] == [end, *everything(broker, start, "news")]
        assert data(everything(broker, start, "news")) == ["one", "two"]
        assert parse_id(one.id)[1] == 3
        (record,) = (record for record in caplog.records if record.name == "ssekit.brokers")
        assert 'channel "work" was dropped' in record.message

    def test_however_much_is_committed_at_once_it_gets_its_places(
        self, open_one: Opener, database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # All in one transaction of the log would take longer, and hinder every publish for ever.
        monkeypatch.setitem(line._SETTINGS, "statement_timeout", "1s")
        broker = open_one(history=10_000)
        start = broker.tip()
        broker.finish("over", END, FINISHED)
        with psycopg.connect(database) as connection:
            for n in range(1, 51):  # keyed and passing ones in between
                connection.execute(
                    "SELECT ssekit.enqueue(ssekit.identity(), 0, 'news',"
                    " convert_to('data: ' || n || chr(10), 'UTF8'), NULL, false)"
                    " FROM generate_series(%s::int, %s::int) AS n",
                    (100 * n, 100 * n + 97),
                )
                broker.append_in(connection, "news", body(100 * n + 98), passing=True)
                broker.append_in(connection, "news", body(100 * n + 99), key=f"key {n % 3}")
        last = broker.append("news", body("last"))
        assert parse_id(last.id)[1] == 5002
        expected = [str(n) for n in range(100, 5100) if n % 100 < 98]
        found = everything(broker, start, "news", limit=1000)
        assert data(entry for entry in found if entry.key is None) == [*expected, "last"]
        assert state(broker, "news") == {"key 0": "4899", "key 1": "4999", "key 2": "5099"}
        recent, _ = broker.recent(101)
        assert data(recent) == [*(str(n) for n in range(5000, 5100)), "last"]

    def test_events_of_slow_transactions_are_neither_lost_nor_repeated_nor_out_of_order(
        self, open_one: Opener, database: str
    ) -> None:
        self.check_slow_transactions(open_one, database, writers=4, count=80, longest=0.01)

    @pytest.mark.ci
    @pytest.mark.timeout(600)
    def test_20000_events_of_slow_transactions_are_neither_lost_nor_repeated_nor_out_of_order(
        self, open_one: Opener, database: str
    ) -> None:
        self.check_slow_transactions(open_one, database, writers=8, count=1390, longest=0.01)

    def check_slow_transactions(
        self, open_one: Opener, database: str, *, writers: int, count: int, longest: float
    ) -> None:
        broker = open_one(history=100_000)
        start = broker.tip()
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("CREATE TABLE done (channel text, n integer)")
        channels = [f"writer {n}" for n in range(writers)]
        total = writers * (count - count // 10) * 2
        with ExitStack() as stack, ThreadPoolExecutor() as pool:
            seen = pool.submit(followed, open_one(), start, total, 500)
            processes = [
                stack.enter_context(
                    started("transactions", database, channel, str(count), str(longest))
                )
                for channel in channels
            ]
            kills = 0
            while kills < 3 or any(process.poll() is None for process in processes):
                with started("follower", database) as follower:
                    assert follower.stdout is not None
                    follower.stdout.readline()
                    time.sleep(random.uniform(0, 0.2))
                kills += 1
            assert [process.wait() for process in processes] == [0] * writers
            entries = seen.result()
        epoch, first = parse_id(start)
        assert [entry.id for entry in entries] == [
            f"{epoch}-{n}" for n in range(first + 1, first + 1 + total)
        ]
        by_channel = defaultdict(list)
        for entry in entries:
            by_channel[entry.channel].append(entry)
        expected = [f"{n}{part}" for n in range(count) if n % 10 != 9 for part in "ab"]
        for channel in channels:
            assert data(by_channel[channel]) == expected
        assert everything(broker, start, *channels, limit=1000) == entries


class TestAServer:
    @pytest.fixture
    def server(self) -> Iterator[PostgresServer]:
        with PostgresServer() as server:
            yield server

    @pytest.fixture
    def database(self, server: PostgresServer) -> str:
        return server.new_database()

    def test_a_log_survives_a_crash_and_goes_on_in_a_new_epoch(
        self, server: PostgresServer, broker: PostgreSQLBroker
    ) -> None:
        start = broker.tip()
        sent = [broker.append("news", body(n)) for n in range(3)]
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(broker.follow, sent[-1].id, 30)
            until_asleep(pool)
            server.kill()
            with pytest.raises(BrokerUnavailable) as raised:
                waiting.result(10)
        assert not raised.value.maybe_stored
        with pytest.raises(BrokerUnavailable, match="cannot be reached") as raised:
            broker.append("news", body("nobody"))
        assert not raised.value.maybe_stored
        server.start()
        assert broker.follow(sent[-1].id, 0) == ([], sent[-1].id)
        # A kept connection that has ended meanwhile is not mistaken for a lost answer.
        sent.append(broker.append("news", body("after")))
        assert parse_id(sent[-1].id)[0] > parse_id(start)[0]
        assert parse_id(sent[-1].id)[1] == 4
        assert everything(broker, start, "news") == sent
        assert broker.follow(start, 5)[0] == sent

    def test_what_it_has_acknowledged_survives_a_crash_whatever_is_the_databases_default(
        self, server: PostgresServer, broker: PostgreSQLBroker, database: str
    ) -> None:
        name = database.rpartition("/")[2]
        server.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
        start = broker.tip()
        sent = [broker.append("news", body(n)) for n in range(20)]
        server.kill()
        server.start()
        assert everything(broker, start, "news") == sent

    def test_a_restored_backup_loses_history_for_those_who_saw_more_and_nobody_else(
        self, server: PostgresServer, broker: PostgreSQLBroker
    ) -> None:
        start = broker.tip()
        kept = [broker.append("news", body(n)) for n in range(3)]
        server.stop()
        data_folder, backup = server.folder / "data", server.folder / "backup"
        subprocess.run(["cp", "-a", data_folder, backup], check=True)
        server.start()
        forgotten = [broker.append("news", body(f"forgotten {n}")) for n in range(3)]
        server.stop()
        subprocess.run(["rm", "-r", data_folder], check=True)
        backup.rename(data_folder)
        server.start()
        for moment in ("before the next event", "after it", "after a fourth"):
            for entry in forgotten:
                with pytest.raises(HistoryLost):
                    broker.read(["news"], entry.id, 10)
                with pytest.raises(HistoryLost):
                    broker.follow(entry.id, 0)
            for cursor in (start, *(entry.id for entry in kept)):
                broker.read(["news"], cursor, 10)
            kept.append(broker.append("news", body(moment)))
        assert everything(broker, start, "news") == kept
        assert not {entry.id for entry in kept} & {entry.id for entry in forgotten}

    @pytest.mark.slow
    def test_a_failover_resets_those_who_saw_what_it_lost_and_nobody_else(
        self, server: PostgresServer, database: str
    ) -> None:
        with ExitStack() as stack:
            standby = stack.enter_context(PostgresServer(copy_of=server))
            hosts = f"127.0.0.1:{standby.port},127.0.0.1:{server.port}/"
            url = database.replace(f"127.0.0.1:{server.port}/", hosts)
            hub = stack.enter_context(Hub(url))
            web = stack.enter_context(gunicorn("tests.apps.news:app", env={"HUB": url}))
            news, sport = (Viewer(web.url, [channel]) for channel in ("news", "sport"))
            stack.callback(news.end)
            stack.callback(sport.end)
            until(lambda: news.joined and sport.joined)
            last = [hub.publish(channel, "kept").id or "" for channel in ("sport", "news")][-1]
            standby.stop_copying()
            hub.publish("news", "forgotten")
            until(lambda: len(news.seen) == 2 and len(sport.seen) == 1)

            server.kill()
            standby.promote()
            until(lambda: news.resets, 30, "the reset")
            until(lambda: news.problems, 10, "the opening after it")
            for channel in ("news", "sport"):
                hub.publish(channel, "after")
            until(lambda: len(news.seen) == 3 and len(sport.seen) == 2, 20, "what came after")
            assert [event.data for event in news.seen] == ["kept", "forgotten", "after"]
            assert [event.data for event in sport.seen] == ["kept", "after"]
            assert (len(news.resets), len(sport.resets)) == (1, 0)
            assert sport.problems == []
            # Somebody who was away meanwhile, and has seen nothing that was lost.
            with Client(f"{web.url}/?channel=news", headers={"Last-Event-ID": last}) as client:
                (event,) = client.wait(1)
            assert event == news.seen[-1]

    def test_a_network_that_is_cut_is_noticed(
        self, server: PostgresServer, open_one: Opener, database: str
    ) -> None:
        with cable(server.port) as wire:
            url = database.replace(f":{server.port}/", f":{wire.port}/")
            broker = open_one(url)
            tip = broker.tip()
            with ThreadPoolExecutor() as pool:
                waiting = pool.submit(broker.follow, tip, 30)
                until_asleep(pool)
                wire.cut()
                with pytest.raises(BrokerUnavailable):
                    waiting.result(10)
            with pytest.raises(BrokerUnavailable) as raised:
                broker.append("news", body("nobody"))
            assert not raised.value.maybe_stored
            wire.mend()
            sent = broker.append("news", body("after"))
            assert broker.follow(tip, 5)[0] == [sent]


class TestConnections:
    def backends(self, database: str, action: str) -> int:
        """Do something to all connections of brokers to a database; returns how many there are."""
        with psycopg.connect(database, autocommit=True) as connection:
            statement = (
                f"SELECT {action}(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = 'ssekit'"
            )
            return len(connection.execute(statement.encode()).fetchall())

    def test_what_writers_count_together_is_what_is_there(
        self, open_one: Opener, database: str
    ) -> None:
        brokers = [open_one(history=3, capacity=10) for _ in range(4)]
        start = brokers[0].tip()

        def publish(n: int) -> None:
            key = f"key {n % 5}" if n % 3 == 0 else None
            brokers[n % 4].append(f"channel {n % 7 % 3}", body(n), key=key)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(publish, range(400)))
        assert len(followed(brokers[0], start, 400)) == 400
        with psycopg.connect(database) as connection:
            found = connection.execute(
                "SELECT name, events, keys, (SELECT count(*) FROM ssekit.entry e"
                " WHERE channel = name AND kept = 1), (SELECT count(*) FROM ssekit.entry e"
                " WHERE channel = name AND kept = 2) FROM ssekit.channel"
            ).fetchall()
            assert len(found) == 3
            for _, events, keys, events_there, keys_there in found:
                assert (events, keys) == (events_there, keys_there)
            (counted,) = connection.execute("SELECT counted FROM ssekit.tip").fetchone() or ()
        assert counted == sum(events for _, events, *_ in found) <= 10

    def test_the_room_of_what_was_trimmed_is_given_back(
        self, broker: PostgreSQLBroker, database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("ssekit.brokers.postgresql.following._VACUUM", 20)
        tip = broker.tip()

        def vacuumed() -> bool:
            nonlocal tip
            broker.append("news", body("x"))
            tip = broker.follow(tip, 1)[1]
            broker.follow(tip, 0.05)  # looks after the outbox, and sees how far the log is
            with psycopg.connect(database) as connection:
                (count,) = connection.execute(
                    "SELECT sum(vacuum_count) FROM pg_stat_user_tables WHERE schemaname = 'ssekit'"
                ).fetchone() or (0,)
            return bool(count)

        until(vacuumed, 30)

    def test_a_terminated_connection_is_replaced(
        self, broker: PostgreSQLBroker, database: str
    ) -> None:
        sent = [broker.append("news", body("one"))]
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(broker.follow, sent[0].id, 30)
            until_asleep(pool)
            terminated = time.monotonic()
            assert self.backends(database, "pg_terminate_backend") >= 2
            with pytest.raises(BrokerUnavailable):
                waiting.result(10)
            assert time.monotonic() - terminated < 2
        until(lambda: self.backends(database, "abs") == 0)
        sent.append(broker.append("news", body("two")))
        assert broker.follow(sent[0].id, 5)[0] == sent[1:]

    def test_a_process_keeps_few_connections(self, broker: PostgreSQLBroker, database: str) -> None:
        def publish_and_read(n: int) -> None:
            entry = broker.append("news", body(n))
            broker.read(["news"], entry.id, 10)

        with ThreadPoolExecutor(20) as pool:
            list(pool.map(publish_and_read, range(60)))
        assert self.backends(database, "abs") <= 6
        broker.close()
        until(lambda: self.backends(database, "abs") == 0)

    def test_a_lock_that_is_held_for_long_ends_a_publish_with_an_error(
        self, broker: PostgreSQLBroker, database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(line._SETTINGS, "statement_timeout", "300ms")
        start = broker.tip()
        broker.close()
        broker = connect(database)  # type: ignore[assignment]
        with psycopg.connect(database) as connection:
            connection.execute("LOCK ssekit.tip")
            with pytest.raises(BrokerUnavailable, match="timeout") as raised:
                broker.append("news", body("refused"))
        assert not raised.value.maybe_stored
        sent = broker.append("news", body("one"))
        assert everything(broker, start, "news") == [sent]
        broker.close()

    def test_a_default_isolation_of_the_database_does_no_harm(
        self, broker: PostgreSQLBroker, database: str
    ) -> None:
        with psycopg.connect(database, autocommit=True) as connection:
            name = connection.info.dbname
            connection.execute(
                f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'".encode()
            )
        start = broker.tip()
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda n: broker.append("news", body(n)), range(100)))
        assert len(followed(broker, start, 100)) == 100

    @pytest.mark.parametrize("when", ["early", "late"])
    def test_psycopg_must_not_be_imported_before_gevent_patches(
        self, database: str, when: str
    ) -> None:
        ran = subprocess.run(
            program("patched_late", when, database), cwd=ROOT, capture_output=True, check=False
        )
        assert (ran.returncode == 0) is (when == "early"), ran.stderr
        assert (b"call gevent.monkey.patch_all() before" in ran.stderr) is (when == "late")


@pytest.fixture
def pooler(postgres_server: PostgresServer) -> Iterator[int]:
    """PgBouncer in transaction mode, before the server; its port."""
    port = free_port()
    folder = Path(tempfile.mkdtemp(prefix="ssekit-pgbouncer-"))
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\n* = host=127.0.0.1 port={postgres_server.port}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = trust\nauth_file = {folder}/users\n"
        "pool_mode = transaction\ndefault_pool_size = 3\n"
        f"logfile = {folder}/pgbouncer.log\n"
    )
    (folder / "users").write_text('"ssekit" ""\n')
    command = [need("pgbouncer"), str(settings)]
    if os.geteuid() == 0:  # which it refuses to be
        folder.chmod(0o777)
        command += ["--user", "nobody"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: answers(port), 20, "pgbouncer to answer")
            yield port
        finally:
            process.terminate()
            process.wait(10)
            shutil.rmtree(folder)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def pooled(
    postgres_server: PostgresServer,
    pooler: int,
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """The URL of the database through the pooler."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))  # where processes find each other
    return database.replace(f":{postgres_server.port}/", f":{pooler}/")


@pytest.mark.parametrize("way", ["database", "pooled"])
class TestManyProcesses:
    """Each broker stands for a process: they have nothing in common but what the machine has."""

    @pytest.fixture
    def brokers(
        self, open_one: Opener, way: str, request: pytest.FixtureRequest
    ) -> list[PostgreSQLBroker]:
        url = request.getfixturevalue(way)
        return [open_one(url) for _ in range(16)]

    def test_an_idle_server_is_asked_less_than_fifty_times_a_second(
        self, brokers: list[PostgreSQLBroker], database: str
    ) -> None:
        tip = brokers[0].tip()
        with (
            psycopg.connect(database, autocommit=True) as connection,
            ThreadPoolExecutor(len(brokers)) as pool,
        ):
            connection.execute("CREATE EXTENSION pg_stat_statements")
            waiting = [pool.submit(broker.follow, tip, 4) for broker in brokers]
            time.sleep(1)  # until each knows that another one watches
            before, since = statements(connection), time.monotonic()
            time.sleep(2)
            rate = (statements(connection) - before) / (time.monotonic() - since)
            assert all(one.result()[0] == [] for one in waiting)
        assert 20 < rate < 50

    def test_all_get_what_was_committed_unseen_within_the_time_of_a_look(
        self, brokers: list[PostgreSQLBroker], database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(following, "_BUSY", 0.0)  # as in a log that has been quiet
        cursor = brokers[0].tip()

        def arrives(broker: PostgreSQLBroker) -> float:
            assert len(broker.follow(cursor, 10)[0]) == 1
            return time.perf_counter()

        took = []
        with psycopg.connect(database) as connection, ThreadPoolExecutor(8) as pool:
            for n in range(7):
                waiting = [pool.submit(arrives, broker) for broker in brokers[:8]]
                until_asleep(pool)
                brokers[8].append_in(connection, "news", body(n))
                connection.commit()
                committed = time.perf_counter()
                took.append(max(one.result() for one in waiting) - committed)
                cursor = brokers[8].tip()
        # On an idle machine it is 20 ms; this one runs other tests as well.
        assert sorted(took)[3] < 0.2, took


def statements(connection: psycopg.Connection[Any]) -> int:
    """How many a database has carried out, those of transactions and settings left out."""
    (count,) = connection.execute(
        "SELECT sum(calls) FROM pg_stat_statements"
        " WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
    ).fetchone() or (0,)
    return int(count)


class TestAPooler:
    def test_it_is_noticed_and_said_once(
        self, open_one: Opener, pooled: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        broker = open_one(pooled)
        broker.append("news", body("one"))
        broker.follow(broker.tip(), 0.1)
        (record,) = (record for record in caplog.records if record.name == "ssekit.brokers")
        assert "PgBouncer" in record.message

    def test_what_is_published_through_it_or_beside_it_arrives(
        self, open_one: Opener, pooled: str
    ) -> None:
        broker, direct = open_one(pooled), open_one()
        start = cursor = broker.tip()
        with psycopg.connect(pooled, prepare_threshold=None) as connection:
            calls: list[Callable[[], object]] = [
                lambda: broker.append("news", body("pooled")),
                lambda: direct.append("news", body("direct")),
                lambda: broker.append_in(connection, "news", body("committed")),
            ]
            for n, publish in enumerate(calls):
                with ThreadPoolExecutor() as pool:
                    waiting = pool.submit(broker.follow, cursor, 10)
                    until_asleep(pool)
                    publish()
                    connection.commit()
                    entries, cursor = waiting.result()
                assert data(entries) == [["pooled", "direct", "committed"][n]]
        assert everything(broker, start, "news") == everything(direct, start, "news")

    def test_without_a_state_folder_processes_ask_by_themselves(
        self,
        open_one: Opener,
        pooled: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
        broker, other = open_one(pooled), open_one(pooled)
        cursor = broker.tip()
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(broker.follow, cursor, 10)
            until_asleep(pool)
            sent = other.append("news", body("one"))
            assert waiting.result()[0] == [sent]
        assert "arrive with a delay" in caplog.text

    def test_many_who_publish_through_it_at_once_lose_nothing(
        self, open_one: Opener, pooled: str
    ) -> None:
        brokers = [open_one(pooled) for _ in range(4)]
        start = brokers[0].tip()

        def publish(n: int) -> str:
            return brokers[n % 4].append(f"channel {n % 4}", body(n)).id

        with ThreadPoolExecutor(8) as pool:
            ids = list(pool.map(publish, range(200)))
        epoch, _ = parse_id(start)
        assert sorted(ids, key=parse_id) == [f"{epoch}-{n}" for n in range(1, 201)]
        assert [entry.id for entry in followed(brokers[0], start, 200)] == sorted(ids, key=parse_id)

    def test_its_connections_are_left_as_they_were(
        self, open_one: Opener, pooled: str, database: str
    ) -> None:
        broker = open_one(pooled)
        for n in range(20):
            broker.append("news", body(n))
        with psycopg.connect(pooled, autocommit=True) as connection:
            for setting in ("enable_seqscan", "statement_timeout", "transaction_isolation"):
                (found,) = connection.execute(f"SHOW {setting}".encode()).fetchone() or ()
                assert found == {"enable_seqscan": "on", "statement_timeout": "0"}.get(
                    setting, "read committed"
                )


class TestAPlace:
    def test_a_log_that_is_dropped_in_the_middle_of_a_look_at_it_is_lost(
        self, broker: PostgreSQLBroker, database: str
    ) -> None:
        last = broker.append("news", body("before"))
        with ThreadPoolExecutor() as pool:
            with psycopg.connect(database) as connection:
                connection.execute("DROP SCHEMA ssekit CASCADE")
                following = pool.submit(broker.follow, last.id, 30)
                waits = "SELECT count(*) FROM pg_locks WHERE NOT granted"
                until(lambda: connection.execute(waits).fetchone() == (1,))
            with pytest.raises(HistoryLost):
                following.result(10)

    def test_a_dropped_log_is_another_log(
        self, broker: PostgreSQLBroker, open_one: Opener, database: str
    ) -> None:
        before = broker.append("news", body("before"))
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(broker.follow, before.id, 30)
            until_asleep(pool)
            with psycopg.connect(database) as connection:
                connection.execute("DROP SCHEMA ssekit CASCADE")
            with pytest.raises(HistoryLost):
                waiting.result(10)
        for call in (
            lambda: broker.read(["news"], before.id, 10),
            lambda: broker.history(["news"], 10, before.id),
        ):
            with pytest.raises(HistoryLost):
                call()
        assert broker.history(["news"], 10, None) == []
        after = broker.append("news", body("after"))
        assert parse_id(after.id)[0] > parse_id(before.id)[0]
        assert parse_id(after.id)[1] == 1
        with pytest.raises(HistoryLost):
            broker.read(["news"], before.id, 10)
        assert open_one().history(["news"], 10, None) == [after]

    def test_an_ordinary_append_does_without_the_functions_for_all_others(
        self, broker: PostgreSQLBroker, database: str
    ) -> None:
        sent = [broker.append("news", body("first"))]
        with psycopg.connect(database) as connection:
            for name in ("put", "load", "save", "store"):
                connection.execute(f"DROP FUNCTION ssekit.{name}".encode())
        sent += [broker.append("news", body(n)) for n in range(10)]
        assert [parse_id(entry.id)[1] for entry in sent] == [*range(1, 12)]
        assert broker.history(["news"], 100, None) == sent

    @pytest.mark.parametrize(
        "damage",
        ["DROP TABLE ssekit.entry", "DROP FUNCTION ssekit.lock", "DELETE FROM ssekit.tip"],
    )
    def test_only_an_append_begins_a_damaged_log_anew(
        self, broker: PostgreSQLBroker, database: str, damage: str
    ) -> None:
        before = broker.append("news", body("before"))
        with psycopg.connect(database) as connection:
            connection.execute(damage.encode())
        if "FUNCTION" in damage:  # which reading does not need
            assert broker.read(["news"], before.id, 10) == ([], before.id)
        else:
            for call in (lambda: broker.recent(1), lambda: broker.opening(["news"], 1)):
                with pytest.raises(BrokerUnavailable, match="the next publish starts a new one"):
                    call()
        after = broker.append("news", body("after"))
        assert parse_id(after.id)[1] == 1
        with pytest.raises(HistoryLost):
            broker.read(["news"], before.id, 10)
        assert broker.history(["news"], 10, None) == [after]

    @pytest.mark.parametrize(
        "foreign",
        [
            "CREATE TABLE ssekit.tip (mine text)",
            "CREATE TABLE ssekit.something (mine text)",
            "CREATE VIEW ssekit.log AS SELECT 1 AS mine",
            "CREATE FUNCTION ssekit.append() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
        ],
    )
    def test_what_is_foreign_is_left_alone(
        self, broker: PostgreSQLBroker, database: str, foreign: str
    ) -> None:
        with psycopg.connect(database) as connection:
            connection.execute("CREATE SCHEMA ssekit")
            connection.execute(foreign.encode())
        for call in (
            broker.tip,
            lambda: broker.append("news", body("refused")),
            lambda: broker.recent(1),
            lambda: broker.beat("holder", first=True),
        ):
            with pytest.raises(BrokerUnavailable, match=r"choose another name with \?stream="):
                call()
        with psycopg.connect(database) as connection:
            found = connection.execute(
                "SELECT count(*) FROM pg_class WHERE relnamespace = 'ssekit'::regnamespace"
            ).fetchone()
            assert found == (int("FUNCTION" not in foreign),)

    def test_a_log_of_another_version_is_left_alone(
        self, broker: PostgreSQLBroker, open_one: Opener, database: str
    ) -> None:
        broker.append("news", body("one"))
        with psycopg.connect(database) as connection:
            connection.execute("COMMENT ON TABLE ssekit.tip IS 'ssekit log 99'")
        with pytest.raises(BrokerUnavailable, match="another version of ssekit"):
            open_one().append("news", body("refused"))

    def test_several_logs_fit_into_one_database(self, open_one: Opener, database: str) -> None:
        one, two = open_one(f"{database}?stream=One-1"), open_one(f"{database}?stream=two")
        starts = one.tip(), two.tip()
        with psycopg.connect(database) as connection:
            two.append_in(connection, "news", body("in two"))
        sent = one.append("news", body("in one"))
        assert one.follow(starts[0], 5)[0] == [sent]
        assert data(followed(two, starts[1], 1)) == ["in two"]

    @pytest.mark.parametrize("name", ["", "a b", "pg_x", "-a", 'x"y', "x" * 51, "\u6b22"])
    def test_a_name_that_no_schema_can_have_is_refused(self, database: str, name: str) -> None:
        with pytest.raises(ValueError, match="stream="):
            connect(f"{database}?{urlencode({'stream': name})}")

    def test_a_wrong_url_is_refused_and_its_password_not_shown(self) -> None:
        with pytest.raises(ValueError, match="PostgreSQL") as raised:
            connect("postgresql://me:secret@here/db?nonsense=1")
        assert "secret" not in str(raised.value)

    def test_a_user_without_rights_of_its_own_can_use_a_log_that_was_made_for_it(
        self, postgres_server: PostgresServer, open_one: Opener, database: str
    ) -> None:
        role = f"user_{uuid4().hex[:8]}"
        theirs = database.replace("ssekit@", f"{role}@")
        with psycopg.connect(database) as connection:
            connection.execute(f"CREATE ROLE {role} LOGIN".encode())
            database_name = connection.info.dbname
            connection.execute(f"REVOKE CREATE ON DATABASE {database_name} FROM PUBLIC".encode())
        with pytest.raises(BrokerUnavailable, match="permission denied"):
            open_one(theirs).tip()
        statements = printed_by("config", "postgresql", "--role", role)
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(statements.encode())
        broker = open_one(theirs)
        start = broker.tip()
        with psycopg.connect(theirs) as connection:
            broker.append_in(connection, "news", body("one"))
        broker.append("news", body("two"))
        assert data(broker.follow(start, 5)[0]) == ["one", "two"]


def printed_by(*arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "ssekit", *arguments],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
