"""What is special to ``redis:``: what a server does to its clients, and what they may not do."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ssekit import BrokerUnavailable, Event, HubClosed
from ssekit.brokers import Broker, HistoryLost, connect, parse_id
from tests.ports import free_port
from tests.proxies import certificate_files
from tests.redis_server import RedisServer
from tests.test_brokers import events, everything
from tests.waiting import until, until_asleep


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def broker(server: RedisServer) -> Iterator[Broker]:
    broker = connect(server.url)
    yield broker
    broker.close()


def test_a_log_survives_the_death_of_its_server(server: RedisServer, broker: Broker) -> None:
    start = broker.tip()
    sent = [broker.append("news", Event(n)) for n in range(3)]
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(broker.follow, str(sent[-1].id), 30)
        until_asleep(pool)
        server.kill()
        with pytest.raises(BrokerUnavailable) as raised:
            waiting.result(10)
    assert not raised.value.maybe_stored
    with pytest.raises(BrokerUnavailable, match="cannot be reached") as raised:
        broker.append("news", Event("nobody"))
    assert not raised.value.maybe_stored
    server.start()
    # A kept connection that has ended meanwhile is not mistaken for a lost answer.
    sent.append(broker.append("news", Event("after")))
    assert everything(broker, start, "news") == sent
    assert events(broker.follow(start, 5)[0]) == sent


def test_a_stopped_server_leaves_kept_connections_usable(
    server: RedisServer, broker: Broker
) -> None:
    for n in range(3):
        broker.append("news", Event(n))
        server.stop()
        server.start()
    assert parse_id(broker.append("news", Event("last")).id or "")[1] == 4


def test_ids_that_a_crash_has_undone_are_not_given_again(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, "--appendonly", "no")
    broker = connect(server.url)
    start = broker.tip()
    before = [broker.append("news", Event(n)) for n in range(3)]
    server.command("SAVE")
    undone = [str(broker.append("news", Event(n)).id) for n in range(2)]
    assert len(broker.follow(start, 1)[0]) == 5
    server.kill()
    server.start()
    with pytest.raises(HistoryLost):
        broker.follow(undone[1], 1)
    after = [broker.append("news", Event(n)) for n in range(5)]
    new, seq = parse_id(str(after[0].id))
    assert new > parse_id(start)[0]
    assert seq == 4
    for cursor in undone:
        with pytest.raises(HistoryLost):
            broker.read(["news"], cursor, 10)
        with pytest.raises(HistoryLost):
            broker.follow(cursor, 1)
    assert everything(broker, start, "news", limit=2) == before + after
    assert events(broker.follow(str(before[1].id), 1)[0]) == [before[2], *after]
    assert events(broker.follow(str(before[2].id), 1)[0]) == after
    broker.close()
    server.stop()


def test_a_user_who_may_not_ask_for_the_servers_run_can_publish(server: RedisServer) -> None:
    server.command(*["ACL", "SETUSER", "limited", "on", ">secret", "~*", "+@all", "-info"])
    broker = connect(server.url.replace("unix://", "unix://limited:secret@"))
    start = broker.tip()
    sent = [broker.append("news", Event(n)) for n in range(2)]
    assert events(broker.follow(start, 5)[0]) == sent
    broker.close()


@pytest.mark.parametrize("command", [("FLUSHALL",), ("DEL", "ssekit"), ("DEL", "{ssekit}:log")])
def test_a_flushed_server_is_another_log(
    server: RedisServer, broker: Broker, command: tuple[str, ...]
) -> None:
    before = [str(broker.append("news", Event(n)).id) for n in range(3)]
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(broker.follow, before[-1], 20)
        until_asleep(pool)
        server.command(*command)
        with pytest.raises(HistoryLost):
            broker.read(["news"], before[0], 10)
        time.sleep(0.002)  # a new epoch is a new millisecond
        after = broker.append("news", Event("after"))
        with pytest.raises(HistoryLost):
            waiting.result(20)
    epoch, seq = parse_id(str(after.id))
    assert epoch > parse_id(before[0])[0]
    assert seq == 1
    assert everything(broker, f"{epoch}-0", "news") == [after]


def test_a_flush_is_noticed_though_nothing_follows_it(
    server: RedisServer, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssekit.brokers.redis.broker._LOOK", 0.2)
    before = str(broker.append("news", Event("x")).id)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(broker.follow, before, 20)
        until_asleep(pool)
        server.command("FLUSHALL")
        with pytest.raises(HistoryLost):
            waiting.result(10)


def test_a_log_of_which_an_eviction_left_a_part_is_another_log(server: RedisServer) -> None:
    broker = connect(server.url, 2)
    before = [str(broker.append("news", Event(n)).id) for n in range(5)]
    server.command("DEL", "{ssekit}:trimmed")
    time.sleep(0.002)
    after = str(broker.append("news", Event("after")).id)
    assert parse_id(after)[0] > parse_id(before[0])[0]
    with pytest.raises(HistoryLost):
        broker.read(["news"], before[0], 10)
    broker.close()


def test_keys_of_something_else_are_left_alone(server: RedisServer) -> None:
    server.command("SET", "text", "mine")
    server.command("XADD", "foreign", "1-1", "field", "mine")
    for stream, said in (("text", "WRONGTYPE"), ("foreign", "stream of something else")):
        broker = connect(f"{server.url}?stream={stream}")
        with pytest.raises(BrokerUnavailable, match=said):
            broker.append("news", Event("x"))
        with pytest.raises(BrokerUnavailable, match=said):
            broker.tip()
        broker.close()
    assert server.command("GET", "text") == b"mine"
    assert server.command("XLEN", "foreign") == b":1\r\n"


def test_a_full_server_is_said_and_stores_nothing(server: RedisServer, broker: Broker) -> None:
    start = broker.tip()
    server.command("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(BrokerUnavailable, match="maxmemory") as raised:
        broker.append("news", Event("x"))
    assert not raised.value.maybe_stored
    server.command("CONFIG", "SET", "maxmemory", "0")
    assert broker.tip() == start
    broker.append("news", Event("x"))


class Thief:
    """Stands between broker and server, and takes away the answer to whatever has ``MARK``."""

    def __init__(self, folder: Path, server: RedisServer) -> None:
        self.path = folder / "thief.sock"
        self._server = server
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(self.path))
        self._socket.listen()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        self.asked = 0

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server:
            server.connect(str(self._server.path))
            while question := client.recv(1 << 20):
                server.sendall(question)
                answer = server.recv(1 << 20)
                if b"MARK" in question:
                    self.asked += 1
                    return
                client.sendall(answer)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in self._threads:
            thread.join(10)


def test_an_append_whose_answer_is_lost_is_not_sent_again(
    server: RedisServer, tmp_path: Path
) -> None:
    thief = Thief(tmp_path, server)
    broker = connect(f"unix://{thief.path}")
    start = broker.tip()
    with pytest.raises(BrokerUnavailable, match="did not answer") as raised:
        broker.append("news", Event("MARK"))
    assert raised.value.maybe_stored
    assert thief.asked == 1
    assert len(everything(broker, start, "news")) == 1
    broker.append("news", Event("next"))
    assert parse_id(broker.tip())[1] == 2
    broker.close()
    thief.close()


def test_a_server_that_hangs_is_given_up(server: RedisServer) -> None:
    broker = connect(f"{server.url}?socket_timeout=0.2")
    broker.tip()
    assert server.process is not None
    server.process.send_signal(19)  # SIGSTOP
    try:
        with pytest.raises(BrokerUnavailable, match="did not answer") as raised:
            broker.append("news", Event("x"))
        assert raised.value.maybe_stored
    finally:
        server.process.send_signal(18)
    broker.close()


def test_a_server_that_is_away_at_the_start_is_said(tmp_path: Path) -> None:
    broker = connect(f"unix://{tmp_path}/nobody.sock")
    for call in (broker.tip, lambda: broker.append("news", Event("x"))):
        with pytest.raises(BrokerUnavailable, match="cannot be reached") as raised:
            call()
        assert not raised.value.maybe_stored
    broker.close()


def test_a_process_has_one_reading_connection_and_a_few_others(
    server: RedisServer, broker: Broker
) -> None:
    tip = broker.tip()

    def names() -> list[str]:
        clients = server.command("CLIENT", "LIST").decode()
        return [name for name in re.findall(r" name=(\S*)", clients) if name]

    with ThreadPoolExecutor(40) as pool:
        waiting = pool.submit(broker.follow, tip, 20)
        until(lambda: "ssekit-tail" in names(), 10)
        done = pool.map(lambda n: broker.append(f"c{n}", Event(n)), range(400))
        assert len({event.id for event in done}) == 400
        waiting.result(20)
    assert names().count("ssekit-tail") == 1
    assert 1 <= names().count("ssekit") <= 8
    broker.close()
    until(lambda: not names(), 10, "the connections to end")


def test_commands_are_those_of_redis_6_2(server: RedisServer) -> None:
    broker = connect(server.url, 2)
    start = broker.tip()
    for n in range(5):
        broker.append("news", Event(n))
    broker.read(["news"], broker.tip(), 10)
    broker.follow(broker.tip(), 0.05)
    with pytest.raises(HistoryLost):
        broker.follow(start, 1)
    broker.close()
    used = set(re.findall(r"cmdstat_(\w+)", server.command("INFO", "commandstats").decode()))
    assert used <= {
        *("eval", "time", "ping", "info", "client", "select", "hello", "exists", "del"),
        *("xadd", "xlen", "xrange", "xrevrange", "xread", "xtrim", "hset", "hmget", "zadd"),
        *("zcard", "zscore", "zpopmin", "zremrangebyrank"),
    }


def test_an_option_that_means_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="option of the URL"):
        connect("redis://localhost/0?stream=x&nonsense=1")


@pytest.mark.parametrize(
    "url",
    [
        *("redis://localhost/news", "redis://localhost/-1", "rediss://localhost/0/1"),
        *("redis://localhost/0?stream=", "unix:///x.sock?db=news", "redis://localhost:x/0"),
    ],
)
def test_a_url_that_redis_py_would_take_for_another_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"database|stream=|invalid literal|Invalid value|Port"):
        connect(url)


def test_a_port_a_database_and_a_password_are_taken_from_the_url(tmp_path: Path) -> None:
    port = free_port()
    server = RedisServer(tmp_path, "--port", str(port), "--bind", "127.0.0.1")
    server.command("CONFIG", "SET", "requirepass", "a/b c")
    broker = connect(f"redis://:a%2Fb%20c@127.0.0.1:{port}/3?stream=mine")
    start = broker.tip()
    broker.append("news", Event("x"))
    assert len(broker.follow(start, 5)[0]) == 1
    broker.close()
    wrong = connect(f"redis://:wrong@127.0.0.1:{port}/3?stream=mine")
    with pytest.raises(BrokerUnavailable, match="cannot be reached"):
        wrong.tip()
    wrong.close()
    server.stop()


def test_rediss_is_redis_with_a_certificate_that_is_checked(
    server: RedisServer, tmp_path: Path
) -> None:
    if b"tls-port" not in server.command("CONFIG", "GET", "tls-port"):
        pytest.skip("this redis-server was built without TLS")
    files = certificate_files(tmp_path)
    port = free_port()
    for name, value in (
        ("tls-cert-file", files["certificate"]),
        ("tls-key-file", files["key"]),
        ("tls-auth-clients", "no"),
        ("tls-port", str(port)),
    ):
        assert server.command("CONFIG", "SET", name, value) == b"+OK\r\n"
    broker = connect(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={files['certificate']}")
    cursor = broker.tip()
    with ThreadPoolExecutor() as pool:
        for n in range(3):
            waiting = pool.submit(broker.follow, cursor, 20)
            until_asleep(pool)
            sent = [broker.append("news", Event(f"{n} {'x' * 40_000}"))]
            entries, cursor = waiting.result()
            assert events(entries) == sent
        closing = pool.submit(broker.follow, cursor, 20)
        until_asleep(pool)
        broker.close()
        assert isinstance(closing.exception(5), HubClosed)
    stranger = connect(f"rediss://127.0.0.1:{port}/0")
    with pytest.raises(BrokerUnavailable, match="certificate verify failed"):
        stranger.append("news", Event("x"))
    stranger.close()
