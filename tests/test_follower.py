"""The process's one reading of a log: where it cannot be read, and where reading it fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from ssekit import BrokerUnavailable, Hub
from ssekit.brokers import Entry, connect
from ssekit.hub.follower import Follower
from ssekit.hub.pieces import View
from ssekit.hub.reader import Reader
from ssekit.hub.recent import RecentEntries
from ssekit.testing import connect as client_of
from tests.logs import body
from tests.waiting import until


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as hub:
        yield hub


def test_a_client_that_comes_before_the_log_was_ever_reached_waits_without_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = 0
    read = Reader._read

    def counted(self: Reader) -> bool:
        nonlocal turns
        turns += 1
        return read(self)

    monkeypatch.setattr(Reader, "_read", counted)
    folder = tmp_path / "later"
    hub = Hub(f"sqlite:///{folder}/hub.db")
    subscription = hub.subscribe("news")
    seen: list[str | None] = []
    viewer = threading.Thread(target=lambda: seen.append(next(subscription).event))
    viewer.start()
    try:
        until(lambda: turns > 0)
        time.sleep(0.2)  # as long as a reader that does not wait takes for thousands of turns
        assert turns < 10, "the reader asks again and again"
        folder.mkdir()
        until(lambda: seen == ["stream-open"], 20)
    finally:
        hub.close()
        viewer.join(10)


def test_an_outage_is_logged_once_and_tried_at_growing_jittered_intervals(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broker = connect("memory:")
    recent, follow = broker.recent, broker.follow
    waits: list[float] = []

    def away(*_: object) -> Any:
        raise BrokerUnavailable("nobody answers")

    def wait(seconds: float) -> None:
        waits.append(seconds)
        follower.closed = len(waits) == 30
        if len(waits) == 15:  # it comes back for a moment
            monkeypatch.setattr(broker, "recent", recent)
            monkeypatch.setattr(broker, "follow", once)

    def once(after: str, timeout: float) -> object:
        monkeypatch.setattr(broker, "follow", away)
        broker.append("news", body("x"))
        return follow(after, timeout)

    monkeypatch.setattr(broker, "recent", away)
    follower = Follower(broker)
    monkeypatch.setattr(follower, "_wait", wait)
    with caplog.at_level("INFO", "ssekit.hub"):
        follower._run()
    outage = "the hub's broker is away, its streams stay open: nobody answers"
    assert caplog.messages == [outage, "the hub's broker is back", outage]
    bounds = [min(5.0, 0.1 * 2**n) for n in range(15)] * 2
    assert all(most / 2 <= waited <= most for waited, most in zip(waits, bounds, strict=True))
    assert len(set(waits)) == len(waits)
    broker.close()


def test_an_error_in_taking_entries_is_logged_and_the_follower_begins_anew(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    extend = RecentEntries.extend

    def fail_once(self: RecentEntries, entries: Sequence[Entry]) -> None:
        monkeypatch.setattr(RecentEntries, "extend", extend)
        raise RuntimeError("out of luck")

    with client_of(hub.stream("news")) as viewer:
        assert next(viewer).event == "stream-open"
        hub.publish("news", "before")
        assert next(viewer).data == "before"
        monkeypatch.setattr(RecentEntries, "extend", fail_once)
        sent = [hub.publish("news", n) for n in range(3)]
        assert [event.id for event in islice(viewer, 3)] == [event.id for event in sent]
    until(lambda: "the hub could not take entries: out of luck" in caplog.text)
    assert "Traceback" in caplog.text


def test_a_distributor_that_fails_ends_its_streams_and_the_follower_goes_on(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing:
        ended = 0

        def deliver(self, entries: Sequence[Entry]) -> None:
            raise RuntimeError("in the middle")

        def restart(self, epoch: int, position: int) -> None:
            pass

        def end_all(self) -> None:
            self.ended += 1

    events = hub.subscribe("news", timeout=5)
    next(events)
    distributor = Failing()
    follower = hub._opened.follower()
    follower.distributor = distributor
    for n in range(3):
        hub.publish("news", n)
        assert next(events).data == str(n)
    until(lambda: distributor.ended > 0)
    assert "in the middle" in caplog.text


class Own:
    """What an internal channel's entries are for; it fails as often as it is told to."""

    def __init__(self, fails: int = 0) -> None:
        self.seen: list[str] = []
        self.restarts = 0
        self.fails = fails

    def take(self, entries: Sequence[Entry]) -> None:
        if self.fails:
            self.fails -= 1
            raise RuntimeError("not mine")
        self.seen += [entry.id for entry in entries]

    def restart(self) -> None:
        self.restarts += 1

    def away(self) -> None:
        pass


class Internal:
    """Takes the entries of an internal channel; fails at the first that it is told to."""

    def __init__(self, *failing: str) -> None:
        self.seen: list[str] = []
        self.restarts = 0
        self._failing = set(failing)

    def take(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if entry.key in self._failing:
                self._failing.remove(entry.key)
                raise RuntimeError("not mine")
            self.seen.append(entry.id)

    def restart(self) -> None:
        self.restarts += 1

    def away(self) -> None:
        pass


def test_entries_of_an_internal_channel_are_handed_over(hub: Hub) -> None:
    follower = hub._opened.follower()
    internal = follower.internal["\0own"] = Internal()
    until(lambda: follower.ready)
    entry = hub._broker.append("\0own", body("x"), key="a")
    hub._broker.append("news", body("x"))
    until(lambda: internal.seen == [entry.id])


def test_an_internal_listener_that_fails_is_restarted_and_stops_nothing(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    follower = hub._opened.follower()
    internal = follower.internal["\0own"] = Internal("a")
    events = hub.subscribe("news", timeout=5)
    next(events)
    until(lambda: follower.ready)
    restarts = internal.restarts
    hub._broker.append("\0own", body("x"), key="a")
    hub.publish("news", "x")
    assert next(events).data == "x"
    assert internal.restarts > restarts
    until(lambda: "not mine" in caplog.text)


def test_that_channels_are_open_is_asked_once_and_known_until_they_end(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = hub._opened.follower()
    until(lambda: follower.ready)
    asked: list[Any] = []
    here = (follower.recent.epoch, follower.recent.end)
    ends = hub._broker.ends
    monkeypatch.setattr(
        hub._broker, "ends", lambda names: (asked.append(list(names)), ends(names))[1]
    )
    for _ in range(3):
        assert follower.ends(frozenset({"a"}), *here) == {}
    assert asked == [["a"]]
    hub.finish("a")
    until(lambda: "a" in follower.ends({"a"}, *here))
    hub.reopen("a")
    assert follower.ends({"a"}, *here) == {}


def test_a_process_that_fell_behind_its_log_loses_nothing_that_the_log_has(hub: Hub) -> None:
    events = hub.subscribe("quiet", timeout=10)
    next(events)
    follower = hub._opened.follower()
    until(lambda: follower.ready)
    with follower._lock:  # It can take nothing meanwhile.
        hub._broker.append("quiet", body("first"))
        for n in range(2500):
            hub._broker.append("busy", body(str(n)))
        hub._broker.append("quiet", body("last"))
    assert [event.data for event in islice(events, 2)] == ["first", "last"]


def test_a_view_of_two_channels_keeps_their_order(hub: Hub) -> None:
    sent = [hub.publish("ab"[n % 3 == 0], n).id for n in range(50)]
    follower = hub._opened.follower()
    until(lambda: follower.ready)
    piece = follower.recent.piece(View(frozenset("ab")), follower.recent.start)
    assert [entry.id for entry in piece.entries] == sent


def test_the_follower_of_another_process_is_left_alone(hub: Hub) -> None:
    follower = hub._opened.follower()
    follower.process += 1
    follower.close()
    assert not follower.closed
    follower.process -= 1


def test_a_storm_of_returning_clients_reads_the_log_once(
    open_hub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = open_hub(history=5000)
    ids = [hub.publish("news", n).id for n in range(1300)]
    hub.subscribe("other").close()
    until(lambda: hub._opened.follower().ready)
    calls: list[str] = []
    for name in ("read", "ends", "opening", "tip", "recent"):
        original = getattr(hub._broker, name)

        def counted(*given: Any, name: str = name, original: Any = original) -> Any:
            calls.append(name)
            return original(*given)

        monkeypatch.setattr(hub._broker, name, counted)
    for _ in range(50):
        with client_of(hub.stream("news"), last_event_id=ids[1200], timeout=10) as viewer:
            assert [event.id for event in islice(viewer, 99)] == ids[1201:]
    assert calls == [], "what is in memory was read from the log"
    for _ in range(50):
        with client_of(hub.stream("news"), last_event_id=ids[100], timeout=10) as viewer:
            assert next(viewer).id == ids[101]
    assert calls.count("read") <= 5
    assert set(calls) == {"read"}
