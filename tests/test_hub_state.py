"""State: the newest event of each key, its removal, and what clients get that lag."""

from __future__ import annotations

import threading
from itertools import islice
from typing import Any

import pytest

from ssekit import Event, Hub, InvalidEvent
from ssekit.testing import connect

REMOVED = '{"channel":"rates","key":"a"}'


def test_the_state_of_a_channel_is_the_newest_event_of_each_key(hub: Hub) -> None:
    hub.publish("rates", 1, key="a")
    b = hub.publish("rates", 2, "named", 5, key="b")
    a = hub.publish("rates", {"n": 3}, key="a")
    hub.publish("rates", "unkeyed")
    state = hub.state("rates")
    assert state == {"b": b, "a": a}
    assert list(state) == ["b", "a"]
    assert state["b"] == Event("2", "named", b.id, 5)
    assert hub.state("other") == {}


def test_a_removal_is_an_event_and_the_key_is_gone(hub: Hub) -> None:
    with connect(hub.stream("rates")) as viewer:
        next(viewer)
        hub.publish("rates", 0)
        assert next(viewer).data == "0"  # From now on it gets each change.
        hub.publish("rates", 1, key="a")
        removal = hub.remove("rates", "a")
        assert next(viewer).data == "1"
        event = next(viewer)
        assert removal is not None
        assert (event.event, event.data, event.id) == ("stream-remove", REMOVED, removal.id)
    assert hub.state("rates") == {}
    assert hub.remove("rates", "a") is None
    assert hub.remove("other", "a") is None


def test_a_subscription_says_channel_and_key(hub: Hub) -> None:
    events = hub.subscribe("rates", "news", timeout=5)
    opening = next(events)
    assert (opening.channel, opening.key) == (None, None)
    sent = hub.publish("rates", 1, key="a")
    event = next(events)
    assert (event.channel, event.key) == ("rates", "a")
    assert event == sent == Event("1", None, sent.id)
    assert Event("1", None, sent.id) == event
    assert hash(event) == hash(Event("1", None, sent.id))
    hub.publish("news", 2)
    event = next(events)
    assert (event.channel, event.key) == ("news", None)


def test_a_client_that_was_away_gets_the_newest_of_each_key_that_changed(hub: Hub) -> None:
    hub.publish("rates", "unchanged", key="c")
    last = hub.publish("rates", 0, key="a")
    for n in range(1, 50):
        hub.publish("rates", n, key="ab"[n % 2])
    hub.publish("rates", "unkeyed")
    with connect(hub.stream("rates"), last_event_id=last.id) as viewer:
        assert [event.data for event in islice(viewer, 3)] == ["48", "49", "unkeyed"]
        hub.publish("rates", 50, key="a")
        assert next(viewer).data == "50"


def test_replaced_values_are_no_lost_history(open_hub: Any) -> None:
    hub = open_hub(history=3)
    last = hub.publish("rates", "unkeyed")
    for n in range(200):
        hub.publish("rates", n, key="a")
    with connect(hub.stream("rates"), last_event_id=last.id) as viewer:
        assert next(viewer).data == "199"


def test_a_client_that_keeps_up_gets_each_value(hub: Hub) -> None:
    with connect(hub.stream("rates"), timeout=5) as viewer:
        next(viewer)
        for n in range(100):
            hub.publish("rates", n, key="a")
            assert next(viewer).data == str(n)


def test_too_many_keys_are_refused(open_hub: Any) -> None:
    hub = open_hub(max_keys=2)
    for key in "abab":
        hub.publish("rates", 1, key=key)
    with pytest.raises(InvalidEvent):
        hub.publish("rates", 1, key="c")
    hub.remove("rates", "a")
    hub.publish("rates", 1, key="c")


@pytest.mark.parametrize("key", ["", 1, b"x", "\ud800"])
def test_an_invalid_key_is_refused(key: Any) -> None:
    with Hub() as hub, pytest.raises(ValueError, match="key"):
        hub.publish("rates", 1, key=key)


def test_final_values_reach_clients_that_come_and_go(hub: Hub) -> None:
    stop = threading.Event()
    final: dict[str, str] = {}

    def publish() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            hub.publish("rates", n, key="abc"[n % 3])
            final["abc"[n % 3]] = str(n)

    publisher = threading.Thread(target=publish)
    publisher.start()
    values: dict[str, int] = {}
    last: str | None = None
    try:
        for _ in range(20):
            with connect(hub.stream("rates"), last_event_id=last, timeout=10) as viewer:
                for event in islice(viewer, 10):
                    if event.event == "message":
                        key = "abc"[int(event.data) % 3]
                        assert int(event.data) > values.get(key, 0), "an older value came"
                        values[key] = int(event.data)
                    last = event.id
    finally:
        stop.set()
        publisher.join()
    with connect(hub.stream("rates"), last_event_id=last, timeout=10) as viewer:

        def ended() -> bool:
            return all(values.get(key, 0) == int(value) for key, value in final.items())

        while not ended():
            event = next(viewer)
            key = "abc"[int(event.data) % 3]
            assert int(event.data) > values.get(key, 0)
            values[key] = int(event.data)


def test_a_passing_event_reaches_caught_up_clients_without_an_id_and_nobody_later(
    hub: Hub,
) -> None:
    before = hub.publish("chat", "before")
    with connect(hub.stream("chat")) as one, connect(hub.stream("chat")) as two:
        for viewer in (one, two):
            next(viewer)
        passing = hub.publish("chat", "typing", "passing", store=False)
        assert passing.id is None
        for viewer in (one, two):
            event = next(viewer)
            assert (event.event, event.data, event.id) == ("passing", "typing", before.id)
        hub.publish("chat", "after")
        assert next(one).data == next(two).data == "after"
    with connect(hub.stream("chat"), last_event_id=before.id) as viewer:
        assert next(viewer).data == "after"
    assert [event.data for event in hub.history("chat")] == ["before", "after"]


def test_passing_events_evict_nothing(open_hub: Any) -> None:
    hub = open_hub(history=3, capacity=10)
    first = hub.publish("chat", "kept")
    for n in range(200):
        hub.publish("chat", n, store=False)
    hub.publish("chat", "last")
    with connect(hub.stream("chat"), last_event_id=first.id) as viewer:
        assert next(viewer).data == "last"


def test_a_subscription_that_has_read_everything_gets_passing_events(hub: Hub) -> None:
    events = hub.subscribe("chat", timeout=5)
    next(events)
    hub.publish("chat", "typing", store=False)
    event = next(events)
    assert (event.data, event.id, event.channel) == ("typing", None, "chat")


def test_a_passing_event_with_a_key_is_refused() -> None:
    with Hub() as hub, pytest.raises(ValueError, match="stored"):
        hub.publish("chat", 1, key="a", store=False)


def test_an_event_that_is_too_large_is_refused_before_it_is_stored(open_hub: Any) -> None:
    hub = open_hub(max_event=100)
    before = hub.position()
    for send in (
        lambda: hub.publish("news", "x" * 100),
        lambda: hub.publish("news", "x" * 100, key="a"),
        lambda: hub.finish("news", "x" * 100),
    ):
        with pytest.raises(InvalidEvent, match="max_event"):
            send()
    assert hub.position() == before
    hub.publish("news", "x" * 50)
    with pytest.raises(ValueError, match="max_event"):
        open_hub(max_event=0)


def test_events_of_a_megabyte_are_the_most_by_default() -> None:
    with Hub() as hub:
        hub.publish("news", "x" * (1024 * 1024 - 7))
        with pytest.raises(InvalidEvent, match="1048577 bytes"):
            hub.publish("news", "x" * (1024 * 1024 - 6))


def test_a_subscription_with_a_timeout_raises_and_may_be_asked_again(hub: Hub) -> None:
    events = hub.subscribe("news", timeout=0.1)
    assert next(events).event == "stream-open"
    for _ in range(2):
        with pytest.raises(TimeoutError):
            next(events)
    hub.publish("news", "x")
    assert next(events).data == "x"
