"""The keys of a ``redis:`` log: what is not ours is left alone, what is large is read in pieces."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest

from ssekit import BrokerUnavailable
from ssekit.brokers import Broker, HistoryLost, Retention, connect, parse_id
from ssekit.brokers.redis.scripts import Scripts
from tests.logs import END, REMOVED, body, data, everything, state
from tests.redis_server import RedisServer, StartRedis

SIDE_KEYS = [
    *("log", "entries", "index", "keys", "trimmed", "oldest", "lengths", "past"),
    *("ends", "endings", "produced", "done", "leases", "held", "present"),
]

CALLS: dict[str, Callable[[Broker], object]] = {
    "append": lambda broker: broker.append("news", body("x")),
    "append with a key": lambda broker: broker.append("news", body("x"), key="k"),
    "remove": lambda broker: broker.remove("news", "k", REMOVED),
    "finish": lambda broker: broker.finish("news", END, "finished"),
    "reopen": lambda broker: broker.reopen("news"),
    "read": lambda broker: broker.read(["news"], "1-1", 10),
    "follow": lambda broker: broker.follow("1-1", 0.01),
    "recent": lambda broker: broker.recent(10),
    "opening": lambda broker: broker.opening(["news"], None),
    "history": lambda broker: broker.history(["news"], 10, None),
    "ends": lambda broker: broker.ends(["news"]),
    "status": lambda broker: broker.status("news"),
    "tip": lambda broker: broker.tip(),
    "retention": lambda broker: broker.retention(),
    "beat": lambda broker: broker.beat("lease", first=True),
    "leases": lambda broker: broker.leases(),
    "end_lease": lambda broker: broker.end_lease("lease", 1),
    "held": lambda broker: broker.held("lease"),
    "produce": lambda broker: broker.produce("news", "lease"),
    "join": lambda broker: broker.join({("\0m", "a"): body("a")}, "lease"),
    "leave": lambda broker: broker.leave({("\0m", "a"): REMOVED}, "lease"),
}

FOREIGN = {
    "a stream": ["XADD", "KEY", "1-1", "field", "theirs"],
    "a stream with a like field": ["XADD", "KEY", "1-1", "ssekit", "x", "more", "theirs"],
    "a stream without entries": ["XGROUP", "CREATE", "KEY", "workers", "$", "MKSTREAM"],
    "a string": ["SET", "KEY", "theirs"],
    "a hash": ["HSET", "KEY", "epoch", "5"],
    "a list": ["RPUSH", "KEY", "theirs"],
    "a set": ["SADD", "KEY", "theirs"],
    "a sorted set": ["ZADD", "KEY", "1", "theirs"],
}


@pytest.fixture
def server(start_redis: StartRedis) -> RedisServer:
    """One of the test's own, without the disk."""
    return start_redis("--appendonly", "no")


@pytest.fixture
def name() -> str:
    return f"orders {uuid4()}"


@pytest.fixture
def open_log(redis_server: RedisServer, name: str) -> Iterator[Callable[..., Broker]]:
    brokers: list[Broker] = []

    def open_one(**retention: int) -> Broker:
        brokers.append(connect(f"{redis_server.url}?stream={name}", Retention(**retention)))  # type: ignore[arg-type]
        return brokers[-1]

    yield open_one
    for broker in brokers:
        broker.close()


def contents(server: RedisServer, name: str) -> dict[str, bytes]:
    keys = [name, *(f"{{{name}}}:{key}" for key in SIDE_KEYS)]
    return {key: server.command("DUMP", key) for key in keys}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_key_of_somebody_else_is_refused_and_left_alone_by_every_call(
    redis_server: RedisServer, open_log: Callable[..., Broker], name: str, kind: str
) -> None:
    redis_server.command(*(name if word == "KEY" else word for word in FOREIGN[kind]))
    before = contents(redis_server, name)
    for call in CALLS.values():
        with pytest.raises(
            BrokerUnavailable, match=r"was not created by ssekit.*\?stream="
        ) as raised:
            call(open_log())
        assert f"redis stream '{name}'" in str(raised.value)
        assert not raised.value.maybe_stored
    assert contents(redis_server, name) == before


@pytest.mark.parametrize("key", SIDE_KEYS)
@pytest.mark.parametrize("log_exists", [False, True], ids=["alone", "beside a log"])
def test_a_side_key_of_somebody_else_is_refused_and_left_alone(
    redis_server: RedisServer,
    open_log: Callable[..., Broker],
    name: str,
    key: str,
    log_exists: bool,
) -> None:
    theirs = f"{{{name}}}:{key}"
    if log_exists:
        open_log().append("news", body("ours"))
        redis_server.command("DEL", theirs)
    redis_server.command("RPUSH", theirs, "theirs")
    before = contents(redis_server, name)
    for call in CALLS.values():
        with pytest.raises(BrokerUnavailable, match="was not created by ssekit") as raised:
            call(open_log())
        assert repr(theirs) in str(raised.value)
    assert contents(redis_server, name) == before


@pytest.mark.parametrize(
    ("key", "command"),
    [("log", ["HSET", "KEY", "seq", "1"]), ("keys", ["HSET", "KEY", "a", "1"])],
)
def test_a_side_key_of_the_right_type_is_somebody_elses_where_there_is_no_log(
    redis_server: RedisServer,
    open_log: Callable[..., Broker],
    name: str,
    key: str,
    command: list[str],
) -> None:
    theirs = f"{{{name}}}:{key}"
    redis_server.command(*(theirs if word == "KEY" else word for word in command))
    before = contents(redis_server, name)
    for call in CALLS.values():
        with pytest.raises(BrokerUnavailable, match="was not created by ssekit"):
            call(open_log())
    assert contents(redis_server, name) == before


@pytest.mark.parametrize("lost", ["", ":log", ":entries", ":index", ":keys", ":trimmed"])
def test_only_an_append_begins_a_log_anew_of_which_a_part_is_missing(
    redis_server: RedisServer, open_log: Callable[..., Broker], name: str, lost: str
) -> None:
    broker = open_log(history=2)
    broker.append("news", body("value"), key="k")
    last = [broker.append("news", body(n)) for n in range(5)][-1]
    redis_server.command("DEL", f"{{{name}}}{lost}" if lost else name)
    before = contents(redis_server, name)
    for word, call in CALLS.items():
        if "append" in word:
            continue
        lost_history = word in ("read", "follow")
        with pytest.raises(HistoryLost if lost_history else BrokerUnavailable):
            call(open_log())
    with pytest.raises(HistoryLost):
        broker.read(["news"], last.id, 10)
    with pytest.raises(HistoryLost):
        broker.follow(last.id, 0.01)
    assert contents(redis_server, name) == before
    time.sleep(0.002)  # A new epoch is a new millisecond.
    new = broker.append("news", body("new"))
    assert parse_id(new.id)[0] > parse_id(last.id)[0]
    assert parse_id(new.id)[1] == 1
    assert broker.history(["news"], 10, None) == [new]
    assert state(broker, "news") == {}
    with pytest.raises(HistoryLost):
        broker.read(["news"], last.id, 10)


def test_reading_an_empty_place_creates_nothing_there(
    redis_server: RedisServer, open_log: Callable[..., Broker], name: str
) -> None:
    broker = open_log()
    for word in ("read", "follow"):
        with pytest.raises(HistoryLost):
            CALLS[word](broker)
    assert broker.history(["news"], 10, None) == []
    assert broker.ends(["news"]) == {}
    assert broker.status("news").state == "open"
    assert broker.leases() == {}
    assert broker.held("lease") == []
    assert set(contents(redis_server, name).values()) == {b"$-1\r\n"}
    broker.tip()
    assert redis_server.command("EXISTS", f"{{{name}}}:log") == b":1\r\n"


def test_a_log_has_the_same_few_keys_however_many_channels(
    redis_server: RedisServer, open_log: Callable[..., Broker], name: str
) -> None:
    broker = open_log(history=1, capacity=50)
    broker.beat("lease", first=True)
    for n in range(200):
        broker.append(f"channel {n % 100}", body(n))
        broker.append(f"channel {n % 100}", body(n), key="k")
    broker.produce("answer", "lease")
    broker.finish("channel 1", END, "finished")
    broker.join({("\0m", "a"): body("a")}, "lease")
    allowed = {name, *(f"{{{name}}}:{key}" for key in SIDE_KEYS)}
    found = redis_server.command("EVAL", "return redis.call('KEYS', '*')", "0")
    ours = {word.decode() for word in found.split(b"\r\n") if name.encode() in word}
    assert ours <= allowed
    assert redis_server.command("XLEN", name) == b":402\r\n"


def test_a_publish_costs_the_same_commands_however_many_channels(server: RedisServer) -> None:
    broker = connect(server.url, Retention(history=3, capacity=1_000_000))

    def commands_for_each_publish() -> float:
        broker.append("channel 1", body("x"))
        server.command("CONFIG", "RESETSTAT")
        for n in range(50):
            broker.append(f"channel {n % 10}", body(n))
        stats = server.command("INFO", "commandstats").decode()
        calls = re.findall(r"cmdstat_(?!info|config)\S+:calls=(\d+)", stats)
        return sum(map(int, calls)) / 50

    for n in range(50):
        broker.append(f"channel {n % 10}", body(n))
    few = commands_for_each_publish()
    for n in range(3000):
        broker.append(f"channel {n}", body(n))
    assert commands_for_each_publish() == few
    assert few < 50
    broker.close()


@pytest.mark.parametrize(
    ("most", "options"),
    [(14, {}), (16, {"key": "k"}), (8, {"passing": True}), (14, {"holder": "lease"})],
    ids=["an event", "a value", "a passing event", "an event of a producer"],
)
def test_an_ordinary_publish_takes_few_commands(
    server: RedisServer, most: int, options: dict[str, Any]
) -> None:
    broker = connect(server.url)
    broker.beat("lease", first=True)
    if "holder" in options:
        broker.produce("news", "lease")
    broker.append("news", body("first"), **options)
    server.command("CONFIG", "RESETSTAT")
    sent = [broker.append("news", body(n), **options) for n in range(640)]
    stats = server.command("INFO", "commandstats").decode()
    calls = re.findall(r"cmdstat_(?!info|config)\S+:calls=(\d+)", stats)
    # All is looked at once in 64 times, with some 40 commands.
    assert sum(map(int, calls)) / 640 <= most + 40 / 64
    beginning = f"{parse_id(sent[0].id)[0]}-1"
    assert broker.follow(beginning, 1)[0] == sent
    kept = [sent[-1]] if "key" in options else [] if "passing" in options else sent
    assert connect(server.url).read(["news"], beginning, 1000)[0] == kept
    broker.close()


def test_an_opening_that_takes_several_calls_is_of_one_moment(
    open_log: Callable[..., Broker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssekit.brokers.contract.BATCH_BYTES", 200)
    monkeypatch.setattr("ssekit.brokers.redis.reading._RECORDS", 3)
    broker, other = open_log(), open_log()
    values = {f"k{n}": broker.append("ab"[n % 2], body(n), key=f"k{n}") for n in range(30)}
    events = [broker.append("ab"[n % 2], body(f"event {n}")) for n in range(30)]
    opening = broker.opening(["a", "b"], None)
    assert opening.state == list(values.values())
    assert opening.history == events
    assert (opening.complete, opening.tip) == (True, events[-1].id)
    assert broker.opening(["a", "b"], 7).history == events[-7:]

    # Now somebody publishes between the calls.
    calls = 0
    fetch = Scripts.read

    def read_and_disturb(self: Scripts, command: str, *rest: object, after: str = "") -> object:
        nonlocal calls
        if command == "records":
            calls += 1
            if calls == 2:
                values["k27"] = other.append("b", body("newer"), key="k27")
                other.remove("a", "k28", REMOVED)
                del values["k28"]
                events.append(other.append("a", body("late")))
                values["new"] = other.append("a", body("new"), key="new")
                ended.append(other.finish("b", END, "finished"))
        return fetch(self, command, *rest, after=after)

    ended: list[object] = []
    monkeypatch.setattr(Scripts, "read", read_and_disturb)
    opening = broker.opening(["a", "b"], None)
    assert calls > 2
    assert {entry.key: entry for entry in opening.state} == values
    assert [entry.id for entry in opening.state] == sorted(
        (entry.id for entry in opening.state), key=lambda text: parse_id(text)[1]
    )
    assert opening.history == events
    assert list(opening.ends.values()) == ended
    assert opening.tip == broker.tip()
    assert broker.read(["a", "b"], opening.tip, 10)[0] == []


def test_openings_beside_a_storm_never_miss_a_value(
    open_log: Callable[..., Broker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssekit.brokers.contract.BATCH_BYTES", 500)
    broker, other = open_log(), open_log()
    for n in range(40):
        broker.append("a", body(0), key=f"k{n}")

    def storm() -> None:
        for n in range(400):
            other.append("a", body(n), key=f"k{n * 7 % 40}")

    with ThreadPoolExecutor() as pool:
        storming = pool.submit(storm)
        while not storming.done():
            opening = broker.opening(["a"], 0)
            assert len(opening.state) == 40
            later = everything(broker, opening.tip, "a")
            seqs = [parse_id(entry.id)[1] for entry in opening.state]
            assert max(seqs) <= parse_id(opening.tip)[1]
            assert all(parse_id(entry.id)[1] > max(seqs) for entry in later)
        storming.result()


def test_a_read_of_many_channels_is_bounded_and_loses_nothing(
    open_log: Callable[..., Broker],
) -> None:
    broker = open_log(history=5000)
    start = broker.tip()
    channels = [f"c{n}" for n in range(700)]
    # More in one channel than a call looks at when there are so many.
    sent = [broker.append("c5" if n % 3 else f"c{n}", body(n)) for n in range(60)]
    entries, cursor = broker.read(channels, start, 1000)
    assert 0 < len(entries) < 60
    assert entries == sent[: len(entries)]
    assert cursor == entries[-1].id
    assert everything(broker, start, *channels, limit=1000) == sent
    assert broker.history(channels, 1000, None) == sent
    assert broker.history(channels, 50, sent[-1].id) == sent[-51:-1]


def test_large_entries_are_read_few_at_a_time(open_log: Callable[..., Broker]) -> None:
    broker = open_log()
    start = broker.tip()
    large = "x" * 400_000
    sent = [broker.append("news", body(large if n % 2 else n)) for n in range(12)]
    entries, _ = broker.read(["news"], start, 1000)
    assert 2 <= len(entries) < 12
    assert everything(broker, start, "news", limit=1000) == sent
    recent, tip = broker.recent(1000)
    assert recent == sent[-len(recent) :]
    assert tip == sent[-1].id
    assert broker.history(["news"], 100, None) == sent
    assert broker.opening(["news"], None).history == sent
    found, cursor = broker.follow(start, 1)
    while cursor != sent[-1].id:
        more, cursor = broker.follow(cursor, 1)
        found += more
    assert found == sent
    values = [broker.append("state", body(large), key=f"k{n}") for n in range(12)]
    assert broker.opening(["state"], 0).state == values


def test_the_channel_whose_event_is_oldest_gives_it_up_among_equally_long_ones(
    open_log: Callable[..., Broker],
) -> None:
    broker = open_log(history=10, capacity=10)
    for n in range(15):
        broker.append(f"channel {n}", body(n))
    kept = [n for n in range(15) if broker.history([f"channel {n}"], 10, None)]
    assert kept == list(range(5, 15))
    assert data(broker.history(["channel 14"], 10, None)) == ["14"]


@pytest.mark.parametrize("stream", ["a{b", "a}b", "{}", "{}x", "a}{b"])
def test_a_name_whose_braces_are_no_hash_tag_is_refused(stream: str) -> None:
    with pytest.raises(ValueError, match="hash tag"):
        connect(f"redis://localhost/0?stream={stream}")


def test_a_state_of_more_keys_than_a_call_looks_at_is_of_one_moment(
    open_log: Callable[..., Broker], monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, other = open_log(), open_log()
    channels = [f"c{n}" for n in range(2000)]  # so that a call looks at two keys of each
    values = {f"k{n}": broker.append("c7", body(n), key=f"k{n}") for n in range(9)}
    disturbed: list[str] = []
    fetch = Scripts.read

    def read_and_disturb(self: Scripts, command: str, *rest: object, after: str = "") -> object:
        if command == "keyed" and not disturbed:
            disturbed.append(command)
            values["k0"] = other.append("c7", body("newer"), key="k0")
            values["k8"] = other.append("c7", body("newer"), key="k8")
            other.remove("c7", "k1", REMOVED)
            other.remove("c7", "k7", REMOVED)
            del values["k1"], values["k7"]
        return fetch(self, command, *rest, after=after)

    assert broker.opening(channels, 0).state == list(values.values())
    monkeypatch.setattr(Scripts, "read", read_and_disturb)
    opening = broker.opening(channels, 0)
    assert disturbed
    assert {entry.key: entry for entry in opening.state} == values
    assert opening.tip == broker.tip()
