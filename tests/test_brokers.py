"""The broker contract, the same tests for all three; what is special to one has its own file."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from ssekit import Decoder, Event, HubClosed, InvalidEvent
from ssekit import brokers as contract
from ssekit.brokers import Broker, Entry, HistoryLost, connect, parse_id
from tests.commands import printed, program
from tests.conftest import url_of
from tests.servers import ROOT
from tests.test_wire import EVENTS, NAN
from tests.waiting import until_asleep

Open = Callable[..., Broker]


@pytest.fixture
def opened(url: str) -> Iterator[Open]:
    """Opens brokers on the test's URL, each as another process would, and closes them all."""
    brokers: list[Broker] = []

    def open_one(history: int = 1000) -> Broker:
        brokers.append(connect(url, history))
        return brokers[-1]

    yield open_one
    for broker in brokers:
        broker.close()


@pytest.fixture
def broker(opened: Open) -> Broker:
    return opened()


def module_of(broker: Broker) -> str:
    """The module whose bounds hold for a broker."""
    return type(broker).__module__.replace("sqlite.broker", "sqlite.log")


def events(entries: list[Entry]) -> list[Event]:
    return [entry.event for entry in entries]


def everything(broker: Broker, after: str, *channels: str, limit: int = 100) -> list[Event]:
    found: list[Event] = []
    while True:
        entries, cursor = broker.read(channels, after, limit)
        found += events(entries)
        if cursor == after:
            return found
        after = cursor


def followed(broker: Broker, after: str, count: int, seconds: float = 10) -> list[Entry]:
    found: list[Entry] = []
    deadline = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < deadline:
        entries, after = broker.follow(after, 0.5)
        found += entries
    return found


class TestABroker:
    def test_ids_count_from_the_empty_log_without_gaps(self, broker: Broker) -> None:
        epoch, seq = parse_id(broker.tip())
        assert seq == 0
        assert abs(epoch / 1000 - time.time()) < 60
        ids = [broker.append("news", Event(n)).id for n in range(3)]
        assert ids == [f"{epoch}-1", f"{epoch}-2", f"{epoch}-3"]
        assert broker.tip() == f"{epoch}-3"

    def test_what_append_returns_is_what_others_read(self, broker: Broker) -> None:
        start = broker.tip()
        stored = [
            broker.append("news", Event("a\r\nb\rc\u2028\0", "name", None, 5)),
            broker.append("news", Event({"n": [1.5, "\u6b22"]}, comment="note")),
            broker.append("news", Event(b"bytes", "")),
            broker.append("news", Event(event="only a name", retry=10**30)),
        ]
        assert [event.data for event in stored] == [
            "a\nb\nc\u2028\0",
            '{"n":[1.5,"\u6b22"]}',
            "bytes",
            None,
        ]
        read, _ = broker.read(["news"], start, 10)
        tail, _ = broker.follow(start, 5)
        assert events(read) == events(tail) == stored

    def test_every_entry_has_its_bytes(self, broker: Broker) -> None:
        start = broker.tip()
        event = broker.append("news", Event("hello", "greeting"))
        (entry,), _ = broker.follow(start, 5)
        assert (
            entry.frame
            == event.encode()
            == f"event: greeting\ndata: hello\nid: {event.id}\n\n".encode()
        )
        assert (entry.id, entry.channel) == (event.id, "news")

    @settings(
        max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(event=EVENTS)
    def test_an_event_arrives_as_the_same_bytes(self, broker: Broker, event: Event) -> None:
        start = broker.tip()
        stored = broker.append("\u6b22 channel", event)
        ((entry,), _) = broker.read(["\u6b22 channel"], start, 10)
        assert entry.event == stored
        sent = Event(event.data, event.event, stored.id, event.retry, event.comment)
        assert Decoder().feed(entry.frame) == Decoder().feed(sent.encode())

    def test_an_id_of_the_caller_is_not_used(self, broker: Broker) -> None:
        start = broker.tip()
        assert broker.append("news", Event("x", id="mine")).id == start.replace("-0", "-1")

    @pytest.mark.parametrize("event", [Event("x", event="a\nid: 7"), Event(NAN), Event("\ud800")])
    def test_an_invalid_event_is_refused_and_not_stored(self, broker: Broker, event: Event) -> None:
        start = broker.tip()
        with pytest.raises(InvalidEvent):
            broker.append("news", event)
        assert broker.tip() == start

    def test_reads_the_named_channels_in_order_and_moves_past_the_others(
        self, broker: Broker
    ) -> None:
        start = broker.tip()
        a = [broker.append(channel, Event(channel)) for channel in "aabaccba"]
        assert everything(broker, start, "a") == [a[0], a[1], a[3], a[7]]
        assert everything(broker, start, "b", "c") == [a[2], a[4], a[5], a[6]]
        assert everything(broker, str(a[3].id), "b", "c") == a[4:7]
        assert broker.read(["nobody"], start, 10) == ([], a[7].id)
        assert broker.read(["a"], str(a[7].id), 10) == ([], a[7].id)

    def test_reads_nothing_of_no_channel(self, broker: Broker) -> None:
        start = broker.tip()
        sent = broker.append("a", Event("x"))
        assert broker.read([], start, 10) == ([], sent.id)

    @pytest.mark.parametrize("limit", [1, 2, 3])
    def test_reads_in_pieces_without_loss_or_repeat(self, broker: Broker, limit: int) -> None:
        start = broker.tip()
        sent = [broker.append("ab"[n % 2], Event(n)) for n in range(9)]
        assert everything(broker, start, "a", limit=limit) == sent[::2]
        assert everything(broker, start, "a", "b", limit=limit) == sent

    def test_reads_a_long_log_of_other_channels_in_pieces(
        self, opened: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        broker = opened()
        monkeypatch.setattr(f"{module_of(broker)}._SCAN", 4)
        start = broker.tip()
        sent = [broker.append("rare" if n in (5, 8, 17) else "busy", Event(n)) for n in range(20)]
        assert everything(broker, start, "rare", limit=1) == [sent[5], sent[8], sent[17]]

    @pytest.mark.parametrize(
        "cursor",
        [
            *("", "x", "1", "-1", "1-", "1-1-1", "1 - 1", "01-1", "1-01", "+1-1", "\u0661-1"),
            *("1-1\n", "9" * 5000 + "-1", "1-" + "9" * 30),
        ],
    )
    def test_what_never_was_an_id_is_lost_history(self, broker: Broker, cursor: str) -> None:
        broker.append("news", Event("x"))
        with pytest.raises(HistoryLost):
            broker.read(["news"], cursor, 10)
        with pytest.raises(HistoryLost):
            broker.follow(cursor, 5)

    def test_an_id_of_another_log_or_of_the_future_is_lost_history(self, broker: Broker) -> None:
        broker.append("news", Event("x"))
        epoch, seq = parse_id(broker.tip())
        for cursor in (f"{epoch - 1}-1", f"{epoch + 1}-0", f"{epoch}-{seq + 1}"):
            with pytest.raises(HistoryLost):
                broker.read(["news"], cursor, 10)
            with pytest.raises(HistoryLost):
                broker.follow(cursor, 5)

    def test_a_log_keeps_the_last_events_of_its_history(self, opened: Open) -> None:
        broker = opened(3)
        start = broker.tip()
        sent = [broker.append("news", Event(n)) for n in range(7)]
        for n, event in enumerate(sent):
            if n < 3:
                with pytest.raises(HistoryLost):
                    broker.read(["news"], str(event.id), 10)
                with pytest.raises(HistoryLost):
                    broker.follow(str(event.id), 5)
            else:
                assert everything(broker, str(event.id), "news") == sent[n + 1 :]
        with pytest.raises(HistoryLost):
            broker.read(["news"], start, 10)

    def test_a_busy_channel_takes_nothing_from_a_quiet_one(self, opened: Open) -> None:
        broker = opened(3)
        start = broker.tip()
        sent = [broker.append("quiet", Event(n)) for n in range(2)]
        for n in range(10):
            broker.append("busy", Event(n))
        assert everything(broker, str(sent[1].id), "quiet") == []
        assert everything(broker, start, "silent") == []
        for lost in (start, str(sent[0].id)):
            with pytest.raises(HistoryLost):
                broker.read(["quiet"], lost, 10)
        last = broker.append("quiet", Event("last"))
        assert everything(broker, str(sent[1].id), "quiet", "silent") == [last]
        with pytest.raises(HistoryLost):
            broker.read(["quiet", "busy"], str(sent[1].id), 10)

    def test_channels_not_remembered_share_a_floor(
        self, opened: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        broker = opened(2)
        monkeypatch.setattr(f"{module_of(broker)}.CHANNELS_REMEMBERED", 4)
        if module_of(broker).endswith("sqlite.log"):
            monkeypatch.setattr("ssekit.brokers.sqlite.log._TIDY", 1)
        sent = [broker.append(f"channel {n}", Event(n)) for n in range(20)]
        # Whatever was trimmed is lost history, remembered or not ...
        for n in range(18):
            with pytest.raises(HistoryLost):
                broker.read([f"channel {n}"], str(sent[0].id).replace("-1", "-0"), 10)
        # ... and behind the floor nothing else is.
        assert everything(broker, str(sent[15].id), "silent", "channel 3") == []
        assert everything(broker, str(sent[16].id), "channel 18") == [sent[18]]

    def test_follows_all_channels_several_at_once(self, broker: Broker) -> None:
        start = broker.tip()
        sent = [broker.append(channel, Event(channel)) for channel in "abc"]
        entries, cursor = broker.follow(start, 5)
        assert events(entries) == sent
        assert [entry.channel for entry in entries] == ["a", "b", "c"]
        assert cursor == sent[-1].id
        assert broker.follow(cursor, 0.01) == ([], cursor)

    def test_follows_a_long_log_in_pieces(
        self, opened: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        broker = opened()
        monkeypatch.setattr(f"{module_of(broker)}.BATCH", 2)
        start = broker.tip()
        sent = [broker.append("news", Event(n)) for n in range(5)]
        entries, _ = broker.follow(start, 5)
        assert events(entries) == sent[:2]
        assert events(followed(broker, start, 5)) == sent

    def test_wakes_a_follower_at_once(self, broker: Broker) -> None:
        cursor = broker.tip()
        waits = []
        with ThreadPoolExecutor() as pool:
            for n in range(20):
                waiting = pool.submit(broker.follow, cursor, 5)
                time.sleep(0.01)
                published = time.perf_counter()
                broker.append("news", Event(n))
                _, cursor = waiting.result()
                waits.append(time.perf_counter() - published)
        assert median(waits) < 0.05, waits

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
            lambda: broker.append("news", Event("x")),
            lambda: broker.read(["news"], tip, 1),
            lambda: broker.follow(tip, 1),
        ):
            with pytest.raises(HubClosed):
                call()

    def test_threads_that_append_at_once_lose_nothing(self, opened: Open) -> None:
        broker = opened()
        start = broker.tip()

        def publish(channel: str) -> list[str | None]:
            return [broker.append(channel, Event(n)).id for n in range(100)]

        with ThreadPoolExecutor() as pool:
            found = pool.submit(followed, broker, start, 400)
            ids = list(pool.map(publish, "abcd"))
        entries = found.result()
        epoch, _ = parse_id(start)
        assert [entry.id for entry in entries] == [f"{epoch}-{n}" for n in range(1, 401)]
        for channel, sent in zip("abcd", ids, strict=True):
            mine = [entry for entry in entries if entry.channel == channel]
            assert [entry.id for entry in mine] == sent
            assert [entry.event.data for entry in mine] == [str(n) for n in range(100)]

    def test_a_forked_child_goes_on_by_itself(self, url: str) -> None:
        output = printed("broker_fork", url)
        assert output.splitlines()[-1] == "both are well", output

    def test_greenlets_are_woken_by_greenlets_and_by_native_threads(self, url: str) -> None:
        output = printed("broker_in_gevent", url)
        assert output.splitlines()[-1] == "all arrived", output


class TestASharedBroker:
    @pytest.fixture(params=["sqlite", "redis"])
    def url(self, request: pytest.FixtureRequest, tmp_path: Path) -> str:
        return url_of(request, tmp_path)

    def test_another_process_reads_what_was_appended(self, opened: Open) -> None:
        one, two = opened(), opened()
        start = one.tip()
        sent = [one.append("news", Event({"n": 1})), two.append("news", Event("two", "named"))]
        for broker in (one, two):
            assert everything(broker, start, "news") == sent
            assert events(broker.follow(start, 5)[0]) == sent

    def test_a_log_survives_the_process_that_wrote_it(self, opened: Open) -> None:
        one = opened()
        start = one.tip()
        sent = one.append("news", Event("x"))
        one.close()
        assert everything(opened(), start, "news") == [sent]

    def test_another_process_wakes_a_follower_within_ten_milliseconds(
        self, broker: Broker, url: str
    ) -> None:
        start = broker.tip()
        publisher = subprocess.Popen(
            program("timed_publisher", url, "30", "0.01", "news"), cwd=ROOT
        )
        waits = []
        cursor = start
        while len(waits) < 30:
            entries, cursor = broker.follow(cursor, 20)
            now = time.time()
            assert entries, waits
            waits += [now - float(entry.event.data) for entry in entries]
        assert publisher.wait(20) == 0
        assert median(waits) < 0.010, waits

    def test_ten_processes_publish_at_once_and_lose_nothing(self, broker: Broker, url: str) -> None:
        start = broker.tip()
        publishers = [
            subprocess.Popen(program("timed_publisher", url, "50", "0", f"channel {n}"), cwd=ROOT)
            for n in range(10)
        ]
        entries = followed(broker, start, 500, 60)
        assert [publisher.wait(60) for publisher in publishers] == [0] * 10
        epoch, _ = parse_id(start)
        assert [entry.id for entry in entries] == [f"{epoch}-{n}" for n in range(1, 501)]
        for n in range(10):
            mine = [float(e.event.data) for e in entries if e.channel == f"channel {n}"]
            assert len(mine) == 50
            assert mine == sorted(mine)


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


@pytest.mark.parametrize("history", [0, -1, 1.5, True, "10"])
def test_a_history_that_holds_nothing_is_refused(history: object) -> None:
    with pytest.raises(ValueError, match="history"):
        connect("memory:", history)  # type: ignore[arg-type]


def test_the_contract_module_imports_no_broker() -> None:
    kinds = [f"ssekit.brokers.{kind}" for kind in ("memory", "sqlite", "redis")]
    assert printed("imported", "ssekit.brokers", *kinds) == "\n"
    assert contract.connect is connect


def test_memory_and_sqlite_need_the_standard_library_alone(tmp_path: Path) -> None:
    assert printed("opened_brokers", f"sqlite:///{tmp_path}/log.db").strip() == "set()"


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
