"""A hub in one process: who joins, who comes back, what was lost, and how it ends."""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from ssekit import Event, Hub, HubClosed, InvalidEvent
from ssekit.brokers import connect as connect_broker
from ssekit.hub import default_url
from ssekit.testing import connect
from tests.apps.between import assert_all_came_in_order, publish_in_between
from tests.commands import printed
from tests.logs import body
from tests.redis_server import StartRedis
from tests.waiting import until, until_asleep

Open = Callable[..., Hub]


@pytest.fixture
def opened(url: str) -> Iterator[Open]:
    hubs: list[Hub] = []

    def open_one(history: int = 1000) -> Hub:
        hubs.append(Hub(url, history=history))
        return hubs[-1]

    yield open_one
    for hub in hubs:
        hub.close()


@pytest.fixture
def hub(opened: Open) -> Hub:
    return opened()


def seen(events: Any, count: int) -> list[tuple[str | None, Any]]:
    return [(event.event, event.data) for event in islice(events, count)]


def followers() -> int:
    return sum(thread.name == "ssekit-follower" for thread in threading.enumerate())


def news(*data: object) -> list[tuple[str, str]]:
    return [("message", str(one)) for one in data]


OPEN = ("stream-open", "{}")
RESET = ("stream-reset", '{"reason":"history-lost"}')


class TestAHub:
    def test_a_new_viewer_is_told_where_it_joins_and_gets_what_follows(self, hub: Hub) -> None:
        before = hub.publish("news", "before")
        with connect(hub.stream("news", "sport")) as viewer:
            opening = next(viewer)
            assert (opening.event, opening.data, opening.id) == ("stream-open", "{}", before.id)
            sent = [hub.publish("news", 1), hub.publish("other", 2), hub.publish("sport", 3)]
            assert list(islice(viewer, 2)) == [
                Event("1", "message", sent[0].id),
                Event("3", "message", sent[2].id),
            ]

    def test_a_subscription_begins_when_it_is_made(self, hub: Hub) -> None:
        hub.publish("news", "before")
        events = hub.subscribe("news")
        sent = hub.publish("news", {"n": 1}, event="named", retry=7)
        opening = next(events)
        assert (opening.event, opening.data) == OPEN
        assert next(events) == sent == Event('{"n":1}', "named", sent.id, 7)
        events.close()
        assert list(events) == []

    def test_a_viewer_that_comes_back_gets_exactly_what_it_missed(self, hub: Hub) -> None:
        sent = [hub.publish("ab"[n % 2], n) for n in range(600)]
        for n in (0, 1, 299, 598):
            with connect(hub.stream("a"), last_event_id=sent[n].id) as viewer:
                missed = [str(m) for m in range(n + 1, 600) if m % 2 == 0]
                assert [event.data for event in islice(viewer, len(missed))] == missed
                hub.publish("b", "not for it")
                hub.publish("a", "live")
                assert seen(viewer, 1) == news("live")

    def test_a_viewer_that_saw_nothing_but_the_opening_misses_nothing(self, hub: Hub) -> None:
        with connect(hub.stream("news")) as viewer:
            joined = next(viewer).id
        for n in range(3):
            hub.publish("news", n)
        with connect(hub.stream("news"), last_event_id=joined) as viewer:
            assert seen(viewer, 3) == news(0, 1, 2)

    def test_what_is_published_between_the_replay_and_going_live_arrives_once(
        self, hub: Hub
    ) -> None:
        before = hub.publish("news", "before")
        for n in range(3):
            hub.publish("news", n)
        publish_in_between(hub._broker)
        with connect(hub.stream("news"), last_event_id=before.id) as viewer:
            until(lambda: viewer.read() and b"follow 3" in viewer.body)
            hub.publish("news", "last")
            until(lambda: viewer.read() and b"last" in viewer.body)
            assert_all_came_in_order(viewer.body)

    def test_lost_history_is_told_once_and_the_stream_goes_on(self, opened: Open) -> None:
        hub = opened(3)
        ids = [hub.publish("news", n).id for n in range(9)]
        with connect(hub.stream("news"), last_event_id=ids[1]) as viewer:
            reset, opening = islice(viewer, 2)
            assert (reset.event, reset.data, reset.id) == (*RESET, "")
            assert (opening.event, opening.data, opening.id) == (*OPEN, ids[-1])
            hub.publish("news", "live")
            assert seen(viewer, 1) == news("live")
        with connect(hub.stream("news"), last_event_id=ids[6]) as viewer:
            assert seen(viewer, 3) == news(7, 8, "live")

    @pytest.mark.parametrize("never", ["x", "1-1", "\u6b22", "0", "9999999999999-5", "1-2-3"])
    def test_what_was_never_an_id_is_lost_history_without_an_error(
        self, hub: Hub, never: str
    ) -> None:
        hub.publish("news", "x")
        with connect(hub.stream("news"), last_event_id=never) as viewer:
            assert seen(viewer, 1) == [RESET]

    def test_an_empty_last_id_is_none(self, hub: Hub) -> None:
        with connect(hub.stream("news"), last_event_id="") as viewer:
            assert seen(viewer, 1) == [OPEN]

    def test_a_busy_channel_is_no_loss_to_another(self, opened: Open) -> None:
        hub = opened(3)
        with connect(hub.stream("quiet")) as viewer:
            joined = next(viewer).id
            for n in range(20):
                hub.publish("busy", n)
            hub.publish("quiet", "first")
            assert seen(viewer, 1) == news("first")
        with connect(hub.stream("quiet"), last_event_id=joined) as viewer:
            hub.publish("quiet", "second")
            assert seen(viewer, 2) == news("first", "second")

    def test_a_slow_viewer_catches_up_from_the_log(self, opened: Open) -> None:
        hub = opened(1500)
        events = hub.subscribe("news")
        assert next(events).event == "stream-open"
        for n in range(1400):
            hub.publish("news", n)
        assert [event.data for event in islice(events, 1400)] == [str(n) for n in range(1400)]
        for n in range(3100):
            hub.publish("news", n)
        assert [event.event for event in islice(events, 2)] == ["stream-reset", "stream-open"]
        hub.publish("news", "live")
        assert next(events).data == "live"
        events.close()

    def test_a_publisher_does_not_outrun_the_viewers_of_its_own_process(self, opened: Open) -> None:
        hub = opened(200)
        events = hub.subscribe("news")
        with ThreadPoolExecutor() as pool, closing(events):
            reading = pool.submit(lambda: [event.data for event in islice(events, 301)])
            for n in range(300):
                hub.publish("news", n)
            assert reading.result(20)[1:] == [str(n) for n in range(300)]

    def test_many_subscriptions_of_many_publishers_lose_nothing(self, hub: Hub) -> None:
        channels = ["one", "two", "three"]
        readers = [hub.subscribe(channels[n % 3], "all") for n in range(12)]

        def publish(channel: str) -> list[Event]:
            return [hub.publish(channel, n) for n in range(100)]

        with ThreadPoolExecutor(20) as pool:
            reading = [pool.submit(lambda r=r: list(islice(r, 201))) for r in readers]
            sent = dict(zip([*channels, "all"], pool.map(publish, [*channels, "all"]), strict=True))
            for n, one in enumerate(reading):
                got = one.result(20)[1:]
                expected = sent[channels[n % 3]] + sent["all"]
                assert got == sorted(expected, key=lambda event: int(str(event.id).split("-")[1]))
        for reader in readers:
            reader.close()

    def test_close_ends_streams_and_subscriptions(self, hub: Hub) -> None:
        events = hub.subscribe("news")
        assert next(events).event == "stream-open"
        with connect(hub.stream("news")) as viewer, ThreadPoolExecutor() as pool:
            assert seen(viewer, 1) == [OPEN]
            rest = pool.submit(list, events)
            until_asleep(pool)
            hub.close()
            assert rest.result(5) == []
            assert list(viewer) == []
        for call in (
            lambda: hub.publish("news", "x"),
            lambda: hub.subscribe("news"),
            lambda: next(iter(hub.subscribe("news"))),
        ):
            with pytest.raises(HubClosed):
                call()
        hub.close()

    def test_a_subscription_is_closed_from_another_thread(self, hub: Hub) -> None:
        events = hub.subscribe("news")
        assert next(events).event == "stream-open"
        with ThreadPoolExecutor() as pool:
            rest = pool.submit(list, events)
            until_asleep(pool)
            events.close()
            assert rest.result(5) == []

    def test_a_closed_hub_leaves_nothing_open(self, opened: Open) -> None:
        def descriptors() -> int:
            return len(list(Path("/proc/self/fd").iterdir()))

        before = descriptors()
        for n in range(10):
            hub = opened()
            events = hub.subscribe("news")
            hub.publish("news", n)
            assert len(list(islice(events, 2))) == 2
            hub.close()
        until(lambda: descriptors() <= before and not followers())

    def test_an_idle_stream_beats(self, hub: Hub) -> None:
        with connect(hub.stream("news", heartbeat=0.05)) as viewer:
            next(viewer)
            until(lambda: viewer.read() and viewer.body.count(b":\n") > 4)

    def test_a_stream_may_be_told_not_to_beat(self, hub: Hub) -> None:
        with connect(hub.stream("news", heartbeat=float("inf"))) as viewer:
            next(viewer)
            hub.publish("news", "x")
            assert seen(viewer, 1) == news("x")

    def test_a_forked_process_reads_for_itself(self, url: str) -> None:
        assert printed("hub_fork", url).splitlines()[-1] == "well"

    @pytest.mark.parametrize("publisher", ["greenlet", "native thread"])
    def test_a_loop_of_publishing_under_gevent_loses_nothing(
        self, url: str, publisher: str
    ) -> None:
        assert printed("hub_in_gevent", url, publisher).splitlines()[-1] == "well"


@pytest.fixture
def memory() -> Iterator[Hub]:
    hub = Hub()
    yield hub
    hub.close()


@pytest.mark.parametrize("channel", ["", "a\n", "\0", "\x7f", "\x9f", "\ud800", 1, None, b"x"])
def test_what_is_no_channel_is_refused(memory: Hub, channel: Any) -> None:
    for use in (lambda c: memory.publish(c, "x"), memory.subscribe, memory.stream):
        with pytest.raises(ValueError, match="a channel is"):
            use(channel)


@pytest.mark.parametrize(
    "channel", [" ", "a/b?c#d", "\u6b22\u8fce", "\xa0", "\U0001f468\u200d\U0001f469", "x" * 5000]
)
def test_any_other_text_is_a_channel(memory: Hub, channel: str) -> None:
    events = memory.subscribe(channel)
    sent = memory.publish(channel, "x")
    assert list(islice(events, 2))[1] == sent


def test_a_stream_of_no_channel_is_refused(memory: Hub) -> None:
    for use in (memory.stream, memory.subscribe):
        with pytest.raises(ValueError, match="at least one channel"):
            use()


@pytest.mark.parametrize("name", ["stream-open", "stream-reset"])
def test_the_hubs_own_names_are_refused(memory: Hub, name: str) -> None:
    events = memory.subscribe("news")
    opening = next(events)
    with pytest.raises(InvalidEvent, match="own"):
        memory.publish("news", "x", event=name)
    for never in ("a\nb", 1, []):
        with pytest.raises(InvalidEvent):
            memory.publish("news", "x", event=never)  # type: ignore[arg-type]
    assert memory.publish("news", "x").id == str(opening.id).replace("-0", "-1")


def test_a_memory_hub_after_a_restart_is_another_log() -> None:
    first, second = Hub(), Hub()
    last = first.publish("news", "x").id
    second.publish("news", "y")
    with connect(second.stream("news"), last_event_id=last) as viewer:
        assert seen(viewer, 1) == [RESET]
    first.close()
    second.close()


def test_the_last_id_of_the_header_wins_over_the_query(memory: Hub) -> None:
    ids = [memory.publish("news", n).id for n in range(3)]
    stream = memory.stream("news")
    with connect(stream, f"/?last_event_id={ids[1]}", last_event_id=ids[0]) as viewer:
        assert seen(viewer, 2) == news(1, 2)
    with connect(stream, f"/?last_event_id={ids[1]}") as viewer:
        assert seen(viewer, 1) == news(2)


def test_a_memory_hub_under_several_processes_says_so_once(
    memory: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    def several(environ: dict[str, Any], start_response: Any) -> Any:
        environ["wsgi.multiprocess"] = True
        return memory.stream("news")(environ, start_response)

    for _ in range(3):
        with connect(memory.stream("news")) as viewer:
            next(viewer)
    assert not caplog.records
    for _ in range(3):
        with connect(several) as viewer:
            next(viewer)
    (said,) = caplog.records
    assert "memory:" in said.message
    assert "sqlite:" in said.message


@pytest.mark.parametrize("suffixes", [("",), ("", "-wal", "-shm")])
def test_a_deleted_file_is_lost_history_to_those_who_watch(
    tmp_path: Path, suffixes: tuple[str, ...]
) -> None:
    hub = Hub(f"sqlite:///{tmp_path}/hub.db")
    with connect(hub.stream("news"), timeout=10) as viewer:
        assert seen(viewer, 1) == [OPEN]
        for suffix in suffixes:
            Path(f"{tmp_path}/hub.db{suffix}").unlink(missing_ok=True)
        assert seen(viewer, 2) == [RESET, OPEN]
        sent = hub.publish("news", "after")
        assert next(viewer) == Event("after", "message", sent.id)
    hub.close()


def test_a_full_disk_is_said_at_publish_and_ends_no_stream(tmp_path: Path) -> None:
    output = printed("hub_on_a_full_disk", f"sqlite:///{tmp_path}/hub.db")
    assert output == "True\n"


def test_a_redis_that_goes_and_comes_back_ends_no_stream(
    start_redis: StartRedis, caplog: pytest.LogCaptureFixture
) -> None:
    server = start_redis()
    server.stop()
    hub = Hub(server.url)
    with (
        caplog.at_level(logging.INFO, "ssekit.hub"),
        connect(hub.stream("news", heartbeat=0.05), timeout=10) as viewer,
    ):
        until(lambda: viewer.read() and viewer.body.count(b":\n") > 10)
        server.start()
        assert seen(viewer, 1) == [OPEN]
        for n in range(2):
            hub.publish("news", n)
            assert seen(viewer, 1) == news(n)
            until(lambda: "back" in caplog.messages[-1])
            server.kill()
            until(lambda: "away" in caplog.messages[-1], 10)
            beats = viewer.body.count(b":\n")
            until(lambda beats=beats: viewer.read() and viewer.body.count(b":\n") > beats + 10)
            with connect(hub.stream("news", heartbeat=0.05)) as newcomer:
                until(lambda n=newcomer: n.read() and n.body.count(b":\n") > 3)
            server.start()
        hub.publish("news", "last")
        assert seen(viewer, 1) == news("last")
    said = [message.split(",")[0] for message in caplog.messages]
    assert said.count("the hub's broker is away") == 3
    assert "stream-reset" not in viewer.body.decode()
    hub.close()


def test_a_reading_that_fails_for_whatever_reason_is_tried_again(
    memory: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    follow = memory._broker.follow
    failures = iter(range(3))

    def failing(after: str, timeout: float) -> Any:
        if next(failures, None) is not None:
            raise RuntimeError("a bug")
        return follow(after, timeout)

    monkeypatch.setattr(memory._broker, "follow", failing)
    events = memory.subscribe("news")
    next(events)
    sent = memory.publish("news", "x")
    assert next(events) == sent
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert errors[0].exc_info


def test_a_new_epoch_of_the_same_log_is_no_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(f"sqlite:///{tmp_path}/hub.db")
    runs = iter(range(100))
    monkeypatch.setattr("ssekit.brokers.sqlite.epochs.boot_of_machine", lambda: str(next(runs)))
    streams = [hub.stream("news"), hub.stream("quiet"), hub.stream("news", "quiet")]
    with connect(streams[0]) as one, connect(streams[1]) as two, connect(streams[2]) as both:
        assert [seen(viewer, 1) for viewer in (one, two, both)] == [[OPEN]] * 3
        sent = []
        for n in range(5):
            sent.append(hub.publish("news", n))
            assert seen(one, 1) == news(n)
        sent.append(hub.publish("quiet", "at last"))
        assert len({str(event.id).split("-")[0] for event in sent}) == 6
        assert seen(two, 1) == news("at last")
        assert seen(both, 6) == news(*range(5), "at last")
    for n, event in enumerate(sent[:4]):
        with connect(hub.stream("news"), last_event_id=event.id) as viewer:
            assert seen(viewer, 4 - n) == news(*range(n + 1, 5))
    hub.close()


def test_a_flushed_redis_is_lost_history_to_those_who_watch(start_redis: StartRedis) -> None:
    server = start_redis()
    hub = Hub(server.url)
    with connect(hub.stream("news"), timeout=10) as viewer:
        assert seen(viewer, 1) == [OPEN]
        hub.publish("news", "before")
        assert seen(viewer, 1) == news("before")
        server.command("FLUSHALL")
        time.sleep(0.002)  # a new epoch is a new millisecond
        hub.publish("news", "first of the new log")
        assert seen(viewer, 2) == [RESET, OPEN]
        hub.publish("news", "after")
        got = seen(viewer, 1)
        assert got in (news("first of the new log"), news("after"))
    hub.close()


def test_a_process_has_one_follower_however_many_viewers(tmp_path: Path) -> None:
    until(lambda: not followers())
    hub = Hub(f"sqlite:///{tmp_path}/hub.db")
    readers = [hub.subscribe("news") for _ in range(50)]
    for reader in readers:
        next(reader)
    assert followers() == 1
    hub.close()
    until(lambda: not followers())


def test_nothing_is_opened_before_the_first_use(tmp_path: Path) -> None:
    until(lambda: not followers())
    hub = Hub(f"sqlite:///{tmp_path}/hub.db")
    hub.stream("news")
    assert list(tmp_path.iterdir()) == []
    assert not followers()
    hub.close()


def test_a_url_that_names_no_broker_is_refused() -> None:
    with pytest.raises(ValueError, match="names no broker"):
        Hub("http://localhost")


def test_the_default_hub_is_one_file_of_this_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSEKIT_URL", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", f"{tmp_path}/a state?%41")
    url = default_url()
    broker = connect_broker(url)
    broker.append("news", body("x"))
    broker.close()
    folder = tmp_path / "a state?%41" / "ssekit"
    assert (folder / "hub.db").exists()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_url() == f"sqlite:///{tmp_path}/.local/state/ssekit/hub.db"
    monkeypatch.setenv("SSEKIT_URL", "memory:")
    assert default_url() == "memory:"
    assert os.environ["SSEKIT_URL"] == "memory:"
