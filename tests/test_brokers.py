"""The broker contract, the same tests for all: ids, reading and following, threads and forks.

What a log keeps is in test_broker_retention.py; keys, ends and leases are in test_broker_state.py.
What is special to one broker has its own file.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.channels import publish_costs
from ssekit import BrokerUnavailable, HubClosed
from ssekit import brokers as contract
from ssekit.brokers import Broker, Entry, HistoryLost, Retention, connect, parse_id
from ssekit.brokers.interrupted import NotInterrupting
from tests.commands import printed
from tests.conftest import SHARED, URLS
from tests.logs import END, REMOVED, Open, body, data, everything, followed, run
from tests.servers import ROOT
from tests.test_wire import EVENTS
from tests.waiting import until_asleep


class TestABroker:
    def test_ids_count_from_the_empty_log_without_gaps(self, broker: Broker) -> None:
        epoch, seq = parse_id(broker.tip())
        assert seq == 0
        assert abs(epoch / 1000 - time.time()) < 60
        ids = [broker.append("news", body(n)).id for n in range(3)]
        assert ids == [f"{epoch}-1", f"{epoch}-2", f"{epoch}-3"]
        assert broker.tip() == f"{epoch}-3"

    def test_what_append_returns_is_what_others_read(self, broker: Broker) -> None:
        start = broker.tip()
        before = time.time()
        stored = [broker.append("news", body(n)) for n in range(3)]
        stored.append(broker.append("news", body(3), key="a key"))
        for entry in stored:
            assert before - 60 < entry.time < time.time() + 60
        assert stored == sorted(stored, key=lambda entry: entry.time)
        assert broker.read(["news"], start, 10) == (stored, stored[-1].id)
        assert broker.follow(start, 5) == (stored, stored[-1].id)
        assert broker.recent(10) == (stored, stored[-1].id)
        assert broker.history(["news"], 10, None) == stored[:3]

    def test_every_entry_has_its_frame(self, broker: Broker) -> None:
        start = broker.tip()
        entry = broker.append("news", b"event: greeting\ndata: hello\n")
        broker.append("news", body("typing"), passing=True)
        (read, passing), _ = broker.follow(start, 5)
        assert read == entry
        assert read.frame == f"event: greeting\ndata: hello\nid: {entry.id}\n\n".encode()
        assert read.without_id == b"event: greeting\ndata: hello\n\n"
        assert passing.frame == b"data: typing\n\n"

    @settings(
        max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(event=EVENTS, channel=st.sampled_from(["\u6b22 channel", "it's", '{"a":1}', "\0hub"]))
    def test_a_body_is_kept_byte_by_byte(self, broker: Broker, event: Any, channel: str) -> None:
        start = broker.tip()
        key = "\u6b22 {key}" if channel == "\0hub" else None
        stored = broker.append(channel, event.encode(), key=key)
        assert (stored.channel, stored.key) == (channel, key)
        assert stored.body == event.encode()
        assert broker.read([channel], start, 10) == ([stored], stored.id)
        assert broker.follow(start, 10) == ([stored], stored.id)

    def test_reads_the_named_channels_in_order_and_moves_past_the_others(
        self, broker: Broker
    ) -> None:
        start = broker.tip()
        a = [broker.append(channel, body(channel)) for channel in "aabaccba"]
        assert everything(broker, start, "a") == [a[0], a[1], a[3], a[7]]
        assert everything(broker, start, "b", "c") == [a[2], a[4], a[5], a[6]]
        assert everything(broker, a[3].id, "b", "c") == a[4:7]
        assert broker.read(["nobody"], start, 10) == ([], a[7].id)
        assert broker.read(["a"], a[7].id, 10) == ([], a[7].id)

    def test_reads_nothing_of_no_channel(self, broker: Broker) -> None:
        start = broker.tip()
        sent = broker.append("a", body("x"))
        assert broker.read([], start, 10) == ([], sent.id)

    @pytest.mark.parametrize("limit", [1, 2, 3])
    def test_reads_in_pieces_without_loss_or_repeat(self, broker: Broker, limit: int) -> None:
        start = broker.tip()
        sent = [broker.append("ab"[n % 2], body(n)) for n in range(9)]
        assert everything(broker, start, "a", limit=limit) == sent[::2]
        assert everything(broker, start, "a", "b", limit=limit) == sent

    def test_reads_a_rare_channel_of_a_long_log(self, broker: Broker) -> None:
        start = broker.tip()
        sent = [
            broker.append("rare" if n in (5, 8, 1700) else "busy", body(n)) for n in range(2000)
        ]
        assert everything(broker, start, "rare", limit=1) == [sent[5], sent[8], sent[1700]]

    @pytest.mark.parametrize(
        "cursor",
        [
            *("", "x", "1", "-1", "1-", "1-1-1", "1 - 1", "01-1", "1-01", "+1-1", "\u0661-1"),
            *("1-1\n", "9" * 5000 + "-1", "1-" + "9" * 30),
        ],
    )
    def test_what_never_was_an_id_is_lost_history(self, broker: Broker, cursor: str) -> None:
        broker.append("news", body("x"))
        assert_lost(broker, cursor)

    def test_an_id_of_another_log_or_of_the_future_is_lost_history(self, broker: Broker) -> None:
        broker.append("news", body("x"))
        epoch, seq = parse_id(broker.tip())
        for cursor in (f"{epoch - 1}-1", f"{epoch + 1}-0", f"{epoch}-{seq + 1}"):
            assert_lost(broker, cursor)

    def test_follows_all_channels_and_kinds_several_at_once(self, broker: Broker) -> None:
        start = broker.tip()
        sent: list[Entry | None] = [broker.append(channel, body(channel)) for channel in "abc"]
        sent.append(broker.append("a", body("old"), key="k"))
        sent.append(broker.append("a", body("new"), key="k"))
        sent.append(broker.append("b", body("typing"), passing=True))
        sent.append(broker.remove("a", "k", REMOVED))
        sent.append(broker.finish("c", END, "finished"))
        entries, cursor = broker.follow(start, 5)
        assert list(entries) == sent
        assert [entry.passing for entry in entries] == [False] * 5 + [True] + [False] * 2
        assert [entry.key for entry in entries] == [None] * 3 + ["k", "k", None, "k", None]
        assert cursor == entries[-1].id
        assert broker.follow(cursor, 0.01) == ([], cursor)
        assert broker.recent(100) == (entries, cursor)
        assert broker.recent(2) == (entries[-2:], cursor)

    def test_follows_a_long_log_in_pieces(
        self, broker: Broker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("ssekit.brokers.contract.BATCH", 2)
        start = broker.tip()
        sent = [broker.append("news", body(n)) for n in range(5)]
        entries, cursor = broker.follow(start, 5)
        assert entries == sent[:2]
        assert cursor == sent[1].id
        assert followed(broker, start, 5) == sent

    def test_what_is_read_and_followed_at_once_is_bounded_in_bytes(
        self, broker: Broker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("ssekit.brokers.contract.BATCH_BYTES", 1000)
        start = broker.tip()
        sizes = [10, 10, 400, 400, 400, 2000, 2000, *[10] * 30, 900, 900]
        sent = [broker.append("ab"[n % 2], body("x" * size)) for n, size in enumerate(sizes)]
        sent.append(broker.append("a", body("x" * 2000), key="k"))
        sent.append(broker.append("a", body("x" * 2000), key="l"))
        for read in (
            lambda after: broker.read(["a", "b"], after, 100),
            lambda after: broker.follow(after, 5),
        ):
            found: list[Entry] = []
            cursor = start
            while len(found) < len(sent):
                entries, cursor = read(cursor)
                assert sum(len(entry.body) for entry in entries[:-1]) < 1000
                assert entries
                assert cursor == entries[-1].id
                found += entries
            assert found == sent
        assert broker.read(["a", "b"], cursor, 100) == ([], cursor)

    def test_an_empty_log_has_nothing_to_tell(self, broker: Broker) -> None:
        assert broker.history(["news"], 10, None) == []
        assert broker.ends(["news"]) == {}
        assert broker.status("news") == ("open", None)
        assert broker.leases() == {}
        assert broker.held("nobody") == []
        assert broker.reopen("news") is False
        assert broker.remove("news", "k", REMOVED) is None
        assert_lost(broker, "1-0")
        tip = broker.tip()
        assert broker.opening(["news"], None) == ([], [], True, {}, tip)
        assert broker.recent(10) == ([], tip)

    def test_wakes_a_follower_at_once(self, broker: Broker) -> None:
        cursor = broker.tip()
        waits = []
        with ThreadPoolExecutor() as pool:
            for n in range(20):
                waiting = pool.submit(broker.follow, cursor, 5)
                time.sleep(0.01)  # the follower has to wait, and may be asleep or just about to
                published = time.perf_counter()
                broker.append("news", body(n))
                _, cursor = waiting.result()
                waits.append(time.perf_counter() - published)
        assert median(waits) < 0.05, waits

    def test_whatever_is_stored_wakes_a_follower(self, broker: Broker) -> None:
        broker.append("news", body("x"), key="k")
        assert broker.beat("holder", first=True)
        with ThreadPoolExecutor() as pool:
            for call in (
                lambda: broker.remove("news", "k", REMOVED),
                lambda: broker.join({("\0members", "ann"): body("ann")}, "holder"),
                lambda: broker.leave({("\0members", "ann"): REMOVED}, "holder"),
                lambda: broker.append("news", body("typing"), passing=True),
                lambda: broker.finish("news", END, "finished"),
            ):
                waiting = pool.submit(broker.follow, broker.tip(), 5)
                time.sleep(0.01)
                started = time.monotonic()
                call()
                assert len(waiting.result()[0]) == 1
                assert time.monotonic() - started < 2

    def test_close_wakes_every_follower(self, broker: Broker) -> None:
        tip = broker.tip()
        with ThreadPoolExecutor() as pool:
            waiting = [pool.submit(broker.follow, tip, 60) for _ in range(3)]
            until_asleep(pool)
            started = time.monotonic()
            broker.close()
            for one in waiting:
                with pytest.raises(HubClosed):
                    one.result(10)
        assert time.monotonic() - started < 2

    def test_a_closed_broker_says_so(self, broker: Broker) -> None:
        tip = broker.tip()
        broker.close()
        broker.close()
        for call in (
            broker.tip,
            lambda: broker.append("news", body("x")),
            lambda: broker.remove("news", "k", REMOVED),
            lambda: broker.finish("news", END, "finished"),
            lambda: broker.reopen("news"),
            lambda: broker.read(["news"], tip, 1),
            lambda: broker.follow(tip, 1),
            lambda: broker.recent(1),
            lambda: broker.opening(["news"], 1),
            lambda: broker.history(["news"], 1, None),
            lambda: broker.ends(["news"]),
            lambda: broker.status("news"),
            lambda: broker.beat("holder", first=True),
            broker.leases,
            lambda: broker.end_lease("holder", 1),
            lambda: broker.held("holder"),
            lambda: broker.produce("news", "holder"),
            lambda: broker.join({}, "holder"),
            lambda: broker.leave({}, "holder"),
        ):
            with pytest.raises(HubClosed):
                call()

    def test_threads_that_append_at_once_lose_nothing(self, broker: Broker) -> None:
        start = broker.tip()

        def publish(channel: str) -> list[str]:
            return [broker.append(channel, body(n)).id for n in range(100)]

        with ThreadPoolExecutor() as pool:
            found = pool.submit(followed, broker, start, 400)
            ids = list(pool.map(publish, "abcd"))
        entries = found.result()
        epoch, _ = parse_id(start)
        assert [entry.id for entry in entries] == [f"{epoch}-{n}" for n in range(1, 401)]
        for channel, sent in zip("abcd", ids, strict=True):
            mine = [entry for entry in entries if entry.channel == channel]
            assert [entry.id for entry in mine] == sent
            assert data(mine) == [str(n) for n in range(100)]

    def test_a_forked_child_goes_on_by_itself(self, url: str) -> None:
        assert run("tests.apps.forking", url).splitlines()[-1] == "both are well"

    def test_a_child_that_closes_its_log_disturbs_no_thread_of_the_parent(self, url: str) -> None:
        output = run("tests.apps.forking", url, "a thread follows")
        assert output.splitlines()[-1] == "both are well"

    def test_greenlets_are_woken_by_greenlets_and_by_native_threads(self, url: str) -> None:
        assert run("tests.apps.woken_greenlets", url).splitlines()[-1] == "all arrived"

    @pytest.mark.parametrize("patched", [(), ("gevent",)], ids=["plain", "gevent"])
    def test_a_publish_that_interrupts_another_is_stored_properly_or_refused(
        self, url: str, patched: tuple[str, ...]
    ) -> None:
        acknowledged = int(run("tests.apps.interrupting", url, *patched).split()[0])
        assert acknowledged > 100


class TestASharedBroker:
    @pytest.fixture(params=SHARED)
    def url(self, request: pytest.FixtureRequest, tmp_path: Path) -> str:
        return URLS[request.param](request, tmp_path)

    def test_another_process_reads_what_was_appended(self, opened: Open) -> None:
        one, two = opened(), opened()
        start = one.tip()
        sent = [one.append("news", body("one")), two.append("news", body("two"), key="k")]
        for broker in (one, two):
            assert everything(broker, start, "news") == sent
            assert broker.follow(start, 5)[0] == sent

    def test_a_log_survives_the_process_that_wrote_it(self, opened: Open) -> None:
        one = opened()
        start = one.tip()
        sent = [one.append("news", body("x")), one.append("news", body("y"), key="k")]
        assert one.beat("holder", first=True)
        one.produce("work", "holder")
        one.finish("over", END, "failed")
        one.close()
        two = opened()
        assert everything(two, start, "news") == sent
        assert two.status("work") == ("producing", None)
        assert two.status("over") == ("finished", "failed")
        assert two.leases() == {"holder": 1}

    def test_another_process_wakes_a_follower_within_twenty_milliseconds(
        self, broker: Broker, url: str
    ) -> None:
        cursor = broker.tip()
        publisher = start_publisher(url, "30")
        waits: list[float] = []
        while len(waits) < 30:
            entries, cursor = broker.follow(cursor, 20)
            now = time.time()
            assert entries, waits
            waits += [now - float(sent) for sent in data(entries)]
        assert publisher.wait(20) == 0
        assert median(waits) < 0.020, waits

    def test_ten_processes_publish_at_once_and_lose_nothing(self, broker: Broker, url: str) -> None:
        start = broker.tip()
        publishers = [start_publisher(url, "50", "0", f"channel {n}") for n in range(10)]
        entries = followed(broker, start, 500, 60)
        assert [publisher.wait(60) for publisher in publishers] == [0] * 10
        epoch, _ = parse_id(start)
        assert [entry.id for entry in entries] == [f"{epoch}-{n}" for n in range(1, 501)]
        for n in range(10):
            mine = [float(d) for d in data(e for e in entries if e.channel == f"channel {n}")]
            assert len(mine) == 50
            assert mine == sorted(mine)


def assert_lost(broker: Broker, cursor: str) -> None:
    with pytest.raises(HistoryLost):
        broker.read(["news"], cursor, 10)
    with pytest.raises(HistoryLost):
        broker.follow(cursor, 5)
    with pytest.raises(HistoryLost):
        broker.history(["news"], 10, cursor)


def start_publisher(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "tests.apps.publisher", *arguments], cwd=ROOT)


@pytest.mark.parametrize(
    "url",
    [
        *("", "memory:x", "file:x", "sqlite:", "sqlite://x.db", "sqlite:///", "sqlite:///:memory:"),
        *("http://x", "redis", "sqlite:///x.db?history=5", "sqlite:///x.db#1", None, Path("x.db")),
    ],
)
def test_a_url_that_names_no_broker_is_refused(url: Any) -> None:
    with pytest.raises(ValueError, match=r"sqlite:///|no parts|Redis URL"):
        connect(url)


def test_the_contract_module_imports_no_broker() -> None:
    kinds = [f"ssekit.brokers.{kind}" for kind in ("memory", "sqlite", "redis", "postgresql")]
    assert printed("imported", "ssekit.brokers", *kinds) == "\n"
    assert contract.connect is connect


def test_memory_and_sqlite_need_the_standard_library_alone(tmp_path: Path) -> None:
    assert printed("tips", "memory:", f"sqlite:///{tmp_path}/log.db") == "\n"


def test_workers_with_a_memory_log_each_have_their_own_epoch() -> None:
    epochs = set()
    for _ in range(3):
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            os.write(write, connect("memory:").tip().encode())
            os._exit(0)
        os.waitpid(pid, 0)
        epochs.add(os.read(read, 100))
        os.close(read)
        os.close(write)
    epochs |= {connect("memory:").tip().encode() for _ in range(3)}
    assert len(epochs) == 6


def test_a_call_inside_another_is_refused_and_the_next_is_not() -> None:
    once = NotInterrupting()
    with once, pytest.raises(BrokerUnavailable, match="signal handler") as raised, once:
        pass
    assert not raised.value.maybe_stored
    with once:
        pass


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("history", value) for value in (0, -1, 1.5, True, "10", None)),
        *(("capacity", value) for value in (0, "many")),
        *(("max_keys", value) for value in (0, 2.0)),
        *(("max_age", value) for value in (0, -1, True, "1", float("nan"), float("inf"))),
    ],
)
def test_a_retention_that_keeps_nothing_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        Retention(**{name: value})


def test_a_retention_changes_a_log_only_in_what_was_given() -> None:
    stored = Retention(history=5, max_age=60)
    found = Retention(history=7, max_keys=3, given=frozenset({"max_keys"}))
    assert stored.changed_by(found) == Retention(history=5, max_age=60, max_keys=3)
    assert stored.changed_by(Retention()) == stored


def test_a_publish_costs_the_same_in_few_channels_and_in_many(url: str) -> None:
    """The bench measures 100,000 channels; a cost that grew with their number shows here too."""
    broker = connect(url_of_another(url))
    few, many = publish_costs(broker, (20, 2000), events=1, measured=400)
    broker.close()
    assert many.seconds < 5 * few.seconds  # of 100 times as many channels


def url_of_another(url: str) -> str:
    """The address of another new log beside this one."""
    return url.replace("log.db", f"{uuid4()}.db").replace("stream=", f"stream={uuid4()}")
