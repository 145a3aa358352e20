"""What is special to ``redis:``: what a server does to its clients, and what they may not do."""

from __future__ import annotations

import os
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillWaiting  # the built-in one since 3.11
from contextlib import suppress
from pathlib import Path

import pytest
from redis.connection import AbstractConnection

from ssekit import BrokerUnavailable, HubClosed
from ssekit.brokers import Broker, HistoryLost, Retention, connect, parse_id
from ssekit.brokers.places import Places
from tests.logs import END, REMOVED, body, data, everything
from tests.ports import free_port
from tests.proxies import certificate_files
from tests.redis_server import RedisServer, StartRedis
from tests.waiting import until, until_asleep


@pytest.fixture
def server(start_redis: StartRedis) -> RedisServer:
    return start_redis()


@pytest.fixture
def broker(server: RedisServer) -> Iterator[Broker]:
    broker = connect(server.url)
    yield broker
    broker.close()


def test_a_log_survives_the_death_of_its_server(server: RedisServer, broker: Broker) -> None:
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
    # A kept connection that has ended meanwhile is not mistaken for a lost answer.
    sent.append(broker.append("news", body("after")))
    assert everything(broker, start, "news") == sent
    assert broker.follow(start, 5)[0] == sent


def test_a_stopped_server_leaves_kept_connections_usable(
    server: RedisServer, broker: Broker
) -> None:
    for n in range(3):
        broker.append("news", body(n))
        server.stop()
        server.start()
    assert parse_id(broker.append("news", body("last")).id)[1] == 4


def test_ids_that_a_crash_has_undone_are_not_given_again(start_redis: StartRedis) -> None:
    server = start_redis("--appendonly", "no")
    broker = connect(server.url)
    start = broker.tip()
    before = [broker.append("news", body(n)) for n in range(3)]
    server.command("SAVE")
    undone = [broker.append("news", body(n)).id for n in range(2)]
    assert len(broker.follow(start, 1)[0]) == 5
    server.kill()
    server.start()
    with pytest.raises(HistoryLost):
        broker.follow(undone[1], 1)
    after = [broker.append("news", body(n)) for n in range(5)]
    new, seq = parse_id(after[0].id)
    assert new > parse_id(start)[0]
    assert seq == 4
    for cursor in undone:
        with pytest.raises(HistoryLost):
            broker.read(["news"], cursor, 10)
        with pytest.raises(HistoryLost):
            broker.follow(cursor, 1)
    assert everything(broker, start, "news", limit=2) == before + after
    assert broker.follow(before[1].id, 1)[0] == [before[2], *after]
    assert broker.follow(before[2].id, 1)[0] == after
    broker.close()


def test_a_user_who_may_not_ask_for_the_servers_run_can_publish(server: RedisServer) -> None:
    server.command(*["ACL", "SETUSER", "limited", "on", ">secret", "~*", "+@all", "-info"])
    broker = connect(server.url.replace("unix://", "unix://limited:secret@"))
    start = broker.tip()
    sent = [broker.append("news", body(n)) for n in range(2)]
    assert broker.follow(start, 5)[0] == sent
    broker.close()


@pytest.mark.parametrize("command", [("FLUSHALL",), ("DEL", "ssekit"), ("DEL", "{ssekit}:log")])
def test_a_flushed_server_is_another_log(
    server: RedisServer, broker: Broker, command: tuple[str, ...]
) -> None:
    before = [broker.append("news", body(n)).id for n in range(3)]
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(broker.follow, before[-1], 20)
        until_asleep(pool)
        server.command(*command)
        with pytest.raises(HistoryLost):
            broker.read(["news"], before[0], 10)
        time.sleep(0.002)  # a new epoch is a new millisecond
        after = broker.append("news", body("after"))
        with pytest.raises(HistoryLost):
            waiting.result(20)
    epoch, seq = parse_id(after.id)
    assert epoch > parse_id(before[0])[0]
    assert seq == 1
    assert everything(broker, f"{epoch}-0", "news") == [after]


def test_a_flush_is_noticed_though_nothing_follows_it(
    server: RedisServer, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssekit.brokers.redis.broker._CHECK_EVERY", 0.2)
    before = broker.append("news", body("x")).id
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(broker.follow, before, 20)
        until_asleep(pool)
        server.command("FLUSHALL")
        with pytest.raises(HistoryLost):
            waiting.result(10)


def test_a_full_server_is_said_and_stores_nothing(server: RedisServer, broker: Broker) -> None:
    start = broker.tip()
    server.command("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(BrokerUnavailable, match="maxmemory") as raised:
        broker.append("news", body("x"))
    assert not raised.value.maybe_stored
    server.command("CONFIG", "SET", "maxmemory", "0")
    assert broker.tip() == start
    broker.append("news", body("x"))


class Between:
    """Stands between broker and server, on a socket of its own."""

    def __init__(self, folder: Path, server: RedisServer) -> None:
        self.path = folder / "between.sock"
        self._server = server
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(self.path))
        self._socket.listen()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

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
        with client, socket.socket(socket.AF_UNIX) as server, suppress(OSError):
            server.connect(str(self._server.path))
            passes = True
            while True:
                ready, _, _ = select.select([client, server], [], [])
                if client in ready:
                    question = client.recv(1 << 20)
                    server.sendall(question)
                    passes = self.passes(question)
                    if not question:
                        return
                else:
                    answer = server.recv(1 << 20)
                    if not passes or not answer:
                        return
                    client.sendall(answer)

    def passes(self, question: bytes) -> bool:
        """Whether its answer is to be passed on; else the connection then ends."""
        raise NotImplementedError

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in self._threads:
            thread.join(10)


class Thief(Between):
    """Takes away the answer to whatever has ``MARK``."""

    asked = 0

    def passes(self, question: bytes) -> bool:
        self.asked += b"MARK" in question
        return b"MARK" not in question


class Valve(Between):
    """Holds back the answer to whatever has a word, while it is shut."""

    def __init__(self, folder: Path, server: RedisServer, word: bytes) -> None:
        super().__init__(folder, server)
        self.held = 0
        self._word = word
        self._opened = threading.Event()

    def passes(self, question: bytes) -> bool:
        if self._word in question and not self._opened.is_set():
            self.held += 1
            self._opened.wait(20)
        return True

    def open(self) -> None:
        self._opened.set()

    def shut(self) -> None:
        self._opened.clear()


def test_an_append_whose_answer_is_lost_is_not_sent_again(
    server: RedisServer, tmp_path: Path
) -> None:
    thief = Thief(tmp_path, server)
    broker = connect(f"unix://{thief.path}")
    start = broker.tip()
    with pytest.raises(BrokerUnavailable, match="did not answer") as raised:
        broker.append("news", body("MARK"))
    assert raised.value.maybe_stored
    assert thief.asked == 1
    assert len(everything(broker, start, "news")) == 1
    broker.append("news", body("next"))
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
            broker.append("news", body("x"))
        assert raised.value.maybe_stored
    finally:
        server.process.send_signal(18)
    broker.close()


def test_a_server_that_is_away_at_the_start_is_said(tmp_path: Path) -> None:
    broker = connect(f"unix://{tmp_path}/nobody.sock")
    for call in (broker.tip, lambda: broker.append("news", body("x"))):
        with pytest.raises(BrokerUnavailable, match="cannot be reached") as raised:
            call()
        assert not raised.value.maybe_stored
    broker.close()


def test_a_process_has_one_connection_that_follows_and_a_few_others(
    server: RedisServer, broker: Broker
) -> None:
    tip = broker.tip()

    def names() -> list[str]:
        clients = server.command("CLIENT", "LIST").decode()
        return [name for name in re.findall(r" name=(\S*)", clients) if name]

    with ThreadPoolExecutor(40) as pool:
        waiting = pool.submit(broker.follow, tip, 20)
        until(lambda: "ssekit-follow" in names(), 10)
        done = pool.map(lambda n: broker.append(f"c{n}", body(n)), range(400))
        read = pool.map(lambda n: broker.history([f"c{n}"], 10, None), range(400))
        assert len({entry.id for entry in done}) == 400
        assert len(list(read)) == 400
        waiting.result(20)
    assert names().count("ssekit-follow") == 1
    assert 1 <= names().count("ssekit-write") <= 4
    assert 1 <= names().count("ssekit-read") <= 4
    broker.close()
    until(lambda: not names(), 10, "the connections to end")


def test_reading_is_never_in_the_way_of_a_publish(server: RedisServer, tmp_path: Path) -> None:
    valve = Valve(tmp_path, server, b"HELD")
    broker = connect(f"unix://{valve.path}")
    valve.open()
    broker.append("HELD", body("first"))
    valve.shut()
    with ThreadPoolExecutor(20) as pool:
        reading = [pool.submit(broker.history, ["HELD"], 10, None) for _ in range(20)]
        until(lambda: valve.held == 4, 10, "all connections for reading to be in use")
        for n in range(20):
            broker.append("news", body(n))
        assert not any(one.done() for one in reading)
        valve.open()
        assert {len(one.result(10)) for one in reading} == {1}
    broker.close()
    valve.close()


def test_a_publish_waits_until_a_connection_is_free(server: RedisServer, tmp_path: Path) -> None:
    valve = Valve(tmp_path, server, b"HELD")
    broker = connect(f"unix://{valve.path}")
    broker.tip()
    with ThreadPoolExecutor(8) as pool:
        stuck = [pool.submit(broker.append, "news", body("HELD")) for _ in range(4)]
        until(lambda: valve.held == 4, 10, "all connections for writing to be in use")
        queued = pool.submit(broker.append, "news", body("queued"))
        with pytest.raises(StillWaiting):
            queued.result(0.1)
        valve.open()
        ids = [one.result(10).id for one in (*stuck, queued)]
    assert len(set(ids)) == 5
    broker.close()
    valve.close()


def test_places_are_handed_over_in_order_and_none_is_lost() -> None:
    places = Places(2)
    assert places.take(0)
    assert places.take(0)
    assert not places.take(0.01)
    order: list[int] = []

    def work(n: int) -> None:
        assert places.take(10)
        order.append(n)

    with ThreadPoolExecutor(3) as pool:
        waiting = []
        for n in range(3):
            waiting.append(pool.submit(work, n))
            until(lambda: len(places._waiting) == len(waiting), 10)
        for n in range(3):
            places.give_back()
            waiting[n].result(10)
    assert order == [0, 1, 2]
    places.give_back()
    places.give_back()
    assert [places.take(0) for _ in range(3)] == [True, True, False]


def test_places_are_bounded_and_none_is_lost_where_many_threads_take_them() -> None:
    places = Places(3)
    inside: list[None] = []
    most = 0

    def work(_: int) -> None:
        nonlocal most
        for _ in range(200):
            if places.take(0.0005):
                inside.append(None)
                most = max(most, len(inside))
                inside.pop()
                places.give_back()

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(work, range(12)))
    assert most <= 3
    assert [places.take(0) for _ in range(4)] == [True, True, True, False]


def test_scripts_are_sent_once_and_again_where_the_server_has_lost_them(
    server: RedisServer, broker: Broker
) -> None:
    broker.append("news", body("x"))
    broker.read(["news"], broker.tip(), 10)

    def sent() -> int:
        found = re.search(rb"cmdstat_eval:calls=(\d+)", server.command("INFO", "commandstats"))
        return int(found[1]) if found else 0

    before = sent()
    for n in range(20):
        broker.append("news", body(n))
        broker.read(["news"], broker.tip(), 10)
    assert sent() == before
    server.command("SCRIPT", "FLUSH")
    broker.append("news", body("again"))
    assert sent() == before + 1
    assert data(broker.history(["news"], 1, None)) == ["again"]


def test_a_call_in_the_middle_of_a_publish_is_refused_unless_it_reads(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = broker.append("news", body("first"))
    refused: list[BrokerUnavailable] = []
    read: Callable[..., object] = AbstractConnection.read_response

    def interrupted(self: AbstractConnection, *arguments: object, **options: object) -> object:
        # As a signal handler would, or a __del__ that the garbage collector calls.
        monkeypatch.setattr(AbstractConnection, "read_response", read)
        with pytest.raises(BrokerUnavailable, match=r"signal handler or a __del__") as raised:
            broker.append("news", body("interrupting"))
        refused.append(raised.value)
        broker.read(["news"], first.id, 10)
        return read(self, *arguments, **options)

    monkeypatch.setattr(AbstractConnection, "read_response", interrupted)
    broker.append("news", body("second"))
    assert [error.maybe_stored for error in refused] == [False]
    broker.append("news", body("third"))
    assert data(broker.history(["news"], 10, None)) == ["first", "second", "third"]


def test_a_child_that_is_forked_in_the_middle_of_a_call_leaves_the_answer_to_its_parent(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.append("news", body("first"))
    send: Callable[..., object] = AbstractConnection.send_packed_command
    parent = os.getpid()
    children: list[int] = []

    def fork(self: AbstractConnection, *arguments: object, **options: object) -> None:
        monkeypatch.setattr(AbstractConnection, "send_packed_command", send)
        send(self, *arguments, **options)
        children.append(os.fork())

    monkeypatch.setattr(AbstractConnection, "send_packed_command", fork)
    try:
        broker.append("news", body("second"))
    except BrokerUnavailable as error:
        if os.getpid() != parent:
            told = "forked in the middle" in str(error) and error.maybe_stored
            broker.append("news", body("child"))
            broker.close()
            os._exit(0 if told else 1)
        raise
    assert os.getpid() == parent
    assert os.waitpid(children[0], 0)[1] == 0
    broker.append("news", body("third"))
    assert data(broker.history(["news"], 10, None)) == ["first", "second", "child", "third"]


def in_a_cluster(port: int, bus: int) -> list[str]:
    """The options of a server of a cluster; left alone, the bus takes a port that is not ours."""
    bound = ["--bind", "127.0.0.1", "--port", str(port), "--cluster-port", str(bus)]
    return [*bound, "--cluster-enabled", "yes"]


def test_a_log_lives_on_one_server_of_a_cluster(start_redis: StartRedis) -> None:
    port = free_port()
    server = start_redis(*in_a_cluster(port, free_port()))
    server.command("CLUSTER", "ADDSLOTS", *map(str, range(16384)))
    until(lambda: b"cluster_state:ok" in server.command("CLUSTER", "INFO"), 20)
    for stream in ("ssekit", "of%20{tenant}"):
        broker = connect(f"redis://127.0.0.1:{port}?stream={stream}", Retention(history=2))
        start = broker.tip()
        broker.beat("lease", first=True)
        sent = [broker.append("news", body(n)) for n in range(4)]
        sent.append(broker.append("news", body("value"), key="k"))
        broker.produce("answer", "lease")
        assert broker.follow(start, 5)[0] == sent
        assert everything(broker, sent[1].id, "news") == sent[2:]
        assert broker.opening(["news"], None).state == sent[-1:]
        broker.close()


def test_a_log_is_found_on_another_server_of_a_cluster(
    tmp_path: Path, start_redis: StartRedis
) -> None:
    servers = []
    ports = [(free_port(), free_port()) for _ in range(2)]
    for port, bus in ports:
        (folder := tmp_path / str(port)).mkdir()
        servers.append(start_redis(*in_a_cluster(port, bus), folder=folder))
    servers[1].command("CLUSTER", "ADDSLOTS", *map(str, range(16384)))
    servers[0].command("CLUSTER", "MEET", "127.0.0.1", *map(str, ports[1]))
    for server in servers:
        until(lambda s=server: b"cluster_state:ok" in s.command("CLUSTER", "INFO"), 20)  # type: ignore[misc]
    broker = connect(f"redis://127.0.0.1:{ports[0][0]}")
    start = broker.tip()
    sent = [broker.append("news", body(n)) for n in range(3)]
    assert everything(broker, start, "news") == sent
    assert broker.follow(start, 5)[0] == sent
    assert servers[1].command("XLEN", "ssekit") == b":3\r\n"
    broker.close()


def test_commands_are_those_of_redis_6_2(server: RedisServer) -> None:
    broker = connect(server.url, Retention(history=2, capacity=3, max_age=60))
    start = broker.tip()
    broker.beat("lease", first=True)
    for n in range(5):
        broker.append("news", body(n))
        broker.append("state", body(n), key="k")
    broker.remove("state", "k", REMOVED)
    broker.read(["news", "state"], broker.tip(), 10)
    broker.follow(broker.tip(), 0.05)
    with pytest.raises(HistoryLost):
        broker.read(["news"], start, 10)
    broker.produce("answer", "lease")
    broker.join({("\0members", "a"): body("a")}, "lease")
    broker.held("lease")
    broker.leave({("\0members", "a"): REMOVED}, "lease")
    broker.finish("answer", END, "finished", holder="lease")
    broker.opening(["news", "state", "answer"], None)
    broker.recent(10)
    broker.leases()
    broker.reopen("answer")
    broker.end_lease("lease", 1)
    broker.close()
    used = set(re.findall(r"cmdstat_(\w+)", server.command("INFO", "commandstats").decode()))
    assert used <= {
        *("eval", "evalsha", "time", "ping", "info", "client", "select", "hello", "type"),
        *("unlink", "xadd", "xrevrange", "xread", "hset", "hsetnx", "hget", "hmget", "hgetall"),
        *(
            "hdel",
            "hlen",
            "hstrlen",
            "exists",
            "hexists",
            "hincrby",
            "zadd",
            "zrem",
            "zcard",
            "zscore",
            "zrange",
        ),
        *(
            "zrangebylex",
            "zrevrangebylex",
            "zlexcount",
            "zrangebyscore",
            "zrevrange",
            "zpopmin",
            "zincrby",
        ),
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


def test_a_port_a_database_and_a_password_are_taken_from_the_url(start_redis: StartRedis) -> None:
    port = free_port()
    server = start_redis("--port", str(port), "--bind", "127.0.0.1")
    server.command("CONFIG", "SET", "requirepass", "a/b c")
    broker = connect(f"redis://:a%2Fb%20c@127.0.0.1:{port}/3?stream=mine")
    start = broker.tip()
    broker.append("news", body("x"))
    assert len(broker.follow(start, 5)[0]) == 1
    broker.close()
    wrong = connect(f"redis://:wrong@127.0.0.1:{port}/3?stream=mine")
    with pytest.raises(BrokerUnavailable, match="cannot be reached"):
        wrong.tip()
    wrong.close()


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
            sent = [broker.append("news", body(f"{n} {'x' * 40_000}"))]
            entries, cursor = waiting.result()
            assert entries == sent
        closing = pool.submit(broker.follow, cursor, 20)
        until_asleep(pool)
        broker.close()
        assert isinstance(closing.exception(5), HubClosed)
    stranger = connect(f"rediss://127.0.0.1:{port}/0")
    with pytest.raises(BrokerUnavailable, match="certificate verify failed"):
        stranger.append("news", body("x"))
    stranger.close()
