"""Presence: who is in a channel, whatever becomes of tabs, pages, workers and the log."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import pytest

from ssekit import Event, Hub
from ssekit.access import Grant
from ssekit.hub import lease, presence
from ssekit.hub.grant import Member
from ssekit.testing import ReceivedStream, connect
from tests.waiting import until

ANN = ("7", {"name": "Ann"})
BOB = ("8", {"name": "Bob"})


@pytest.fixture
def hub(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(presence, "GRACE", 0.3)
    with Hub(url) as found:
        yield found


@pytest.fixture
def other(hub: Hub, url: str) -> Iterator[Hub]:
    """A hub on the same log, as another process has it."""
    with Hub(url) as found:
        yield hub if url == "memory:" else found


def says(event: Event) -> tuple[Any, ...]:
    """An event as its name and what it says of a member."""
    data = json.loads(str(event.data)) if str(event.event).startswith("stream-") else {}
    if not data:
        return (event.event, event.data)
    return (event.event, data["channel"], data["member"], data["value"])


def take(viewer: ReceivedStream, count: int) -> list[tuple[Any, ...]]:
    return [says(event) for event in islice(viewer, count)]


OPEN = ("stream-open", "{}")
ANN_JOINS = ("stream-join", "room", "7", {"name": "Ann"})
ANN_LEAVES = ("stream-leave", "room", "7", {"name": "Ann"})
BOB_JOINS = ("stream-join", "room", "8", {"name": "Bob"})
BOB_LEAVES = ("stream-leave", "room", "8", {"name": "Bob"})


def watching(hub: Hub, **options: Any) -> Any:
    return connect(hub.stream("room", presence=True), timeout=5, **options)


class TestAMember:
    def test_joins_with_its_stream_and_leaves_after_it(self, hub: Hub, other: Hub) -> None:
        with watching(other) as viewer:
            assert take(viewer, 1) == [OPEN]
            with connect(hub.stream("room", member=ANN)) as stream:
                next(stream)
                assert take(viewer, 1) == [ANN_JOINS]
                assert other.members("room") == dict([ANN])
            assert take(viewer, 1) == [ANN_LEAVES]
            assert other.members("room") == {}

    def test_is_in_each_channel_of_its_stream(self, hub: Hub, other: Hub) -> None:
        with connect(hub.stream("a", "b", member="7")):
            until(lambda: other.members("a") == other.members("b") == {"7": None})
            assert other.members("c") == {}

    def test_is_there_once_however_many_streams_it_has(self, hub: Hub, other: Hub) -> None:
        with watching(other) as viewer:
            next(viewer)
            with connect(hub.stream("room", member=ANN)):
                assert take(viewer, 1) == [ANN_JOINS]
                with (
                    connect(other.stream("room", member=ANN)),
                    connect(hub.stream("room", member=ANN)),
                ):
                    pass
                with connect(hub.stream("room", member=BOB)):
                    assert take(viewer, 1) == [BOB_JOINS]
                assert take(viewer, 1) == [BOB_LEAVES]
            assert take(viewer, 1) == [ANN_LEAVES]

    @pytest.mark.parametrize("elsewhere", [False, True])
    def test_that_comes_back_within_the_grace_was_never_away(
        self, hub: Hub, other: Hub, elsewhere: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(presence, "GRACE", 2.0)
        with watching(other) as viewer:
            next(viewer)
            with connect(hub.stream("room", member=ANN)):
                assert take(viewer, 1) == [ANN_JOINS]
            with connect(hub.stream("room", member=BOB)):
                assert take(viewer, 1) == [BOB_JOINS]
            with connect((other if elsewhere else hub).stream("room", member=ANN)):
                assert take(viewer, 1) == [BOB_LEAVES]  # by then Ann's grace is over as well
            assert take(viewer, 1) == [ANN_LEAVES]

    def test_has_the_value_of_its_newest_stream(self, hub: Hub, other: Hub) -> None:
        with watching(other) as viewer, connect(hub.stream("room", member=("7", 1))):
            assert take(viewer, 2) == [OPEN, ("stream-join", "room", "7", 1)]
            with connect(hub.stream("room", member=("7", 2))):
                assert take(viewer, 1) == [("stream-join", "room", "7", 2)]
                assert other.members("room") == {"7": 2}

    def test_sees_itself(self, hub: Hub) -> None:
        with connect(hub.stream("room", member=ANN, presence=True)) as stream:
            assert take(stream, 2) == [OPEN, ANN_JOINS]

    @pytest.mark.parametrize(
        "member",
        [
            *("", "a\nb", "a\x1b[2J", "\ud800", 7, ("7",), ("7", 1, 2), ("", 1), ["7", 1]),
            *("x" * 257, ("7", "x" * 1023), ("7", "é" * 512), ("7", {1, 2}), ("7", float("nan"))),
        ],
    )
    def test_that_cannot_be_one_is_refused(self, member: Any) -> None:
        with Hub() as hub, pytest.raises(ValueError, match="member"):
            hub.stream("room", member=member)
        with pytest.raises(ValueError, match="member"):
            Grant(["room"], member=member)

    @pytest.mark.parametrize("value", ["x" * 1022, "é" * 511, None, [], {"a": [1.5, True]}])
    def test_has_any_value_of_one_kilobyte(self, value: Any) -> None:
        with Hub() as hub, connect(hub.stream("room", member=("7", value))):
            until(lambda: hub.members("room") == {"7": value})


class TestAStreamWithPresence:
    def test_has_who_is_there_already_in_its_opening(self, hub: Hub, other: Hub) -> None:
        with connect(hub.stream("room", member=ANN)), connect(hub.stream("room", member=BOB)):
            until(lambda: len(other.members("room")) == 2)
            with watching(other) as viewer:
                first = list(islice(viewer, 3))
                assert sorted(map(says, first[:2])) == [ANN_JOINS, BOB_JOINS]
                assert not first[0].id
                assert says(first[2]) == OPEN

    def test_resumes(self, hub: Hub, other: Hub) -> None:
        with connect(hub.stream("room", member=ANN)):
            until(lambda: other.members("room"))
            with watching(other) as viewer:
                take(viewer, 2)
                last = viewer.last_event_id
        with connect(hub.stream("room", member=BOB)):
            until(lambda: len(other.members("room")) == 2)
            hub.publish("room", "hello")
            until(lambda: other.members("room") == dict([BOB]))
            with watching(other, last_event_id=last) as viewer:
                first, *rest = take(viewer, 3)
                assert first == BOB_JOINS
                # Ann's time may have been up before the message.
                assert rest in (
                    [("message", "hello"), ANN_LEAVES],
                    [ANN_LEAVES, ("message", "hello")],
                )

    def test_replays_all_however_many_have_left(self, hub: Hub, url: str) -> None:
        with Hub(url, history=1) as small:
            small.publish("room", "first")
            for member in "abcd":
                with connect(small.stream("room", member=member)):
                    until(lambda member=member: member in small.members("room"))  # type: ignore[misc]
            until(lambda: not small.members("room"))
            with connect(small.stream("room", member=ANN)):
                until(lambda: small.members("room"))
                stream = small.stream("room", presence=True, replay="all")
                with connect(stream) as viewer:
                    assert take(viewer, 3) == [ANN_JOINS, ("message", "first"), OPEN]

    def test_ends_with_its_channels(self, hub: Hub) -> None:
        with connect(hub.stream("room", member=ANN)), watching(hub) as viewer:
            assert says(next(viewer)) in (OPEN, ANN_JOINS)
            hub.finish("room")
            names = [event.event for event in viewer]
            assert names[-1] == "stream-end"

    def test_is_refused_for_clients_that_know_no_hub_events(self, hub: Hub) -> None:
        with pytest.raises(ValueError, match="hub_events"):
            hub.stream("room", presence=True, hub_events=False)

    def test_without_presence_nobody_is_told(self, hub: Hub) -> None:
        with connect(hub.stream("room")) as viewer, connect(hub.stream("room", member=ANN)):
            until(lambda: hub.members("room"))
            hub.publish("room", "hello")
            assert take(viewer, 2) == [OPEN, ("message", "hello")]


class TestMembers:
    def test_evict_no_message(self, hub: Hub, url: str) -> None:
        with Hub(url, history=3, capacity=3, max_keys=1) as small:
            for number in range(3):
                small.publish("room", number)
            before = small.history("room")
            for member in map(str, range(20)):
                with connect(small.stream("room", member=member)):
                    until(lambda member=member: member in small.members("room"))  # type: ignore[misc]
            until(lambda: not small.members("room"))
            assert small.history("room") == before
            assert small.state("room") == {}

    def test_reach_only_streams_that_may_read_the_channel(self, hub: Hub) -> None:
        grants = {"ann": Grant(["a", "b"], member="ann"), "bob": Grant(["a"], member="bob")}
        endpoint = hub.endpoint(lambda request: grants[request.args["user"]], presence=True)
        with connect(endpoint, "/?user=bob") as bob:
            assert take(bob, 2) == [OPEN, ("stream-join", "a", "bob", None)]
            with connect(endpoint, "/?user=ann&channel=b") as ann:
                assert take(ann, 2) == [OPEN, ("stream-join", "b", "ann", None)]
            with connect(endpoint, "/?user=ann"):
                assert take(bob, 1) == [("stream-join", "a", "ann", None)]
            assert hub.members("b") == {"ann": None}

    @pytest.mark.parametrize("channel", ["", "a*", "a\0", "\0members\0room"])
    def test_of_an_invalid_channel_are_refused(self, hub: Hub, channel: str) -> None:
        with pytest.raises(ValueError, match="channel"):
            hub.members(channel)

    def test_leave_once_when_their_process_has_died(
        self, hub: Hub, other: Hub, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if url == "memory:":
            return  # It has one process.
        for name, seconds in {"TERM": 0.6, "LOOK": 0.2, "BEAT": 0.2}.items():
            monkeypatch.setattr(lease, name, seconds)
        dead = Hub(url)
        with watching(other) as viewer, connect(dead.stream("room", member=ANN)):
            assert take(viewer, 2) == [OPEN, ANN_JOINS]
            with connect(dead.stream("room", member=BOB)), connect(hub.stream("room", member=BOB)):
                assert take(viewer, 1) == [BOB_JOINS]
                dead._opened._leases.closed = True  # type: ignore[union-attr] # no beat any more
                assert take(viewer, 1) == [ANN_LEAVES]
                hub.publish("room", "end")
                assert take(viewer, 1) == [("message", "end")]
                assert other.members("room") == dict([BOB])


def test_members_of_many_channels_join_and_leave_in_few_writes(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, writes = hub._broker, 0

    def counted(write: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            nonlocal writes
            writes += 1
            write(*arguments)

        return call

    for name in ("join", "leave"):
        monkeypatch.setattr(broker, name, counted(getattr(broker, name)))
    here = hub._opened.presence()
    stays = [here.enter([f"room {n}"], Member(f"{n}")) for n in range(700)]
    until(lambda: len(hub.members("room 699")) == 1, 30)
    for stay in stays:
        stay.end()
    until(lambda: not hub.members("room 699"), 30)
    assert 4 <= writes < 30  # not 1,400


def test_threads_that_need_a_lease_at_once_share_one(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    beat = hub._broker.beat

    def slow(holder: str, *, first: bool = False) -> bool:
        time.sleep(0.05)
        return beat(holder, first=first)

    monkeypatch.setattr(hub._broker, "beat", slow)
    leases = hub._opened.leases()
    with ThreadPoolExecutor(4) as pool:
        assert len({one.result() for one in [pool.submit(leases.hold) for _ in range(4)]}) == 1
