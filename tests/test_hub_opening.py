"""The opening of a stream: what a client gets that joins, or whose history is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import pytest

from ssekit import Event, Hub
from ssekit.brokers import HistoryLost
from ssekit.testing import connect
from tests.waiting import until


def got(viewer: Iterator[Event], count: int) -> list[tuple[str | None, Any, bool]]:
    """Events as their name, data, and whether the id has changed with them."""
    found: list[tuple[str | None, Any, bool]] = []
    last = ""
    for event in islice(viewer, count):
        found.append((event.event, event.data, (event.id or "") != last))
        last = event.id or ""
    return found


OPEN = ("stream-open", "{}", True)
RESET = ("stream-reset", '{"reason":"history-lost"}', False)


def test_a_new_client_gets_the_newest_of_each_key_oldest_first_and_then_the_id(hub: Hub) -> None:
    hub.publish("rates", 1, key="a")
    hub.publish("rates", 2, "named", key="b")
    hub.publish("rates", 3, key="a")
    hub.publish("other", 4, key="a")
    last = hub.publish("rates", "unkeyed")
    with connect(hub.stream("rates")) as viewer:
        assert got(viewer, 3) == [("named", "2", False), ("message", "3", False), OPEN]
        assert viewer.last_event_id == last.id


def test_lost_history_begins_the_same_opening_with_a_reset_without_an_id(hub: Hub) -> None:
    hub.publish("rates", 1, key="a")
    last = hub.publish("rates", "unkeyed")
    with connect(hub.stream("rates", replay=5), last_event_id="1-1") as viewer:
        assert got(viewer, 4) == [
            RESET,
            ("message", "1", False),
            ("message", "unkeyed", True),
            (*OPEN[:2], False),
        ]
        assert viewer.last_event_id == last.id


@pytest.mark.parametrize("replay", [0, 2, 10, "all"])
def test_replay_gives_the_last_events_without_a_key_with_their_ids(hub: Hub, replay: Any) -> None:
    sent = [hub.publish("ab"[n % 2], n) for n in range(6)]
    hub.publish("a", "value", key="k")
    hub.publish("c", "other")
    with connect(hub.stream("a", "b", replay=replay)) as viewer:
        assert next(viewer).data == "value"
        expected = sent[-replay:] if replay in {2, 10} else sent if replay else []
        assert [event.id for event in islice(viewer, len(expected))] == [e.id for e in expected]
        assert next(viewer).event == "stream-open"
        hub.publish("b", "live")
        assert next(viewer).data == "live"


def test_a_client_that_was_cut_in_the_replay_resumes_there(hub: Hub) -> None:
    sent = [hub.publish("news", n) for n in range(6)]
    hub.publish("news", "old", key="k")
    with connect(hub.stream("news", replay="all")) as viewer:
        assert [event.data for event in islice(viewer, 3)] == ["old", "0", "1"]
    hub.publish("news", "new", key="k")
    with connect(hub.stream("news", replay="all"), last_event_id=sent[1].id) as viewer:
        assert [event.data for event in islice(viewer, 5)] == ["2", "3", "4", "5", "new"]


def test_a_replay_of_all_that_is_not_all_counts_as_lost_history(
    open_hub: Callable[..., Hub],
) -> None:
    hub = open_hub(history=3)
    for n in range(10):
        hub.publish("news", n)
    with connect(hub.stream("news", replay="all")) as viewer:
        assert next(viewer).event == "stream-reset"
        assert [event.data for event in islice(viewer, 3)][-1] is not None
    with connect(hub.stream("news", replay=2)) as viewer:
        assert [event.data for event in islice(viewer, 2)] == ["8", "9"]


@pytest.mark.parametrize("replay", [-1, 1.5, "some", True, None])
def test_an_invalid_replay_is_refused(replay: Any) -> None:
    with Hub() as hub, pytest.raises(ValueError, match="replay"):
        hub.stream("news", replay=replay)


def test_a_client_is_told_of_lost_history_by_what_its_channel_keeps(
    open_hub: Callable[..., Hub],
) -> None:
    hub = open_hub(history=3)
    ids = [hub.publish("news", n).id for n in range(10)]
    for n in range(20):
        hub.publish("busy", n)
    with connect(hub.stream("news"), last_event_id=ids[0]) as viewer:
        assert next(viewer).event == "stream-reset"
    with connect(hub.stream("news"), last_event_id=ids[6]) as viewer:
        assert [event.data for event in islice(viewer, 3)] == ["7", "8", "9"]


def test_expired_events_are_lost_history(open_hub: Callable[..., Hub]) -> None:
    hub = open_hub(max_age=0.3)
    first = hub.publish("news", 1)
    hub.publish("news", 2)
    hub.publish("news", "value", key="k")

    def expired() -> bool:
        with connect(hub.stream("news"), last_event_id=first.id) as viewer:
            return next(viewer).event == "stream-reset"

    until(expired)
    with connect(hub.stream("news")) as viewer:
        assert [event.event for event in islice(viewer, 2)] == ["message", "stream-open"]


def test_the_position_is_where_a_stream_of_the_page_begins(hub: Hub) -> None:
    hub.publish("news", "before")
    position = hub.position()
    hub.publish("news", "between")
    with connect(hub.stream("news"), f"/?last_event_id={position}") as viewer:
        hub.publish("news", "after")
        assert [event.data for event in islice(viewer, 2)] == ["between", "after"]


def test_the_position_of_an_empty_log_is_one_too(hub: Hub) -> None:
    position = hub.position()
    assert position.endswith("-0")
    hub.publish("news", "first")
    with connect(hub.stream("news"), last_event_id=position) as viewer:
        assert next(viewer).data == "first"


def test_history_is_the_last_events_of_some_channels_oldest_first(hub: Hub) -> None:
    sent = [hub.publish("abc"[n % 3], n) for n in range(9)]
    hub.publish("a", "value", key="k")
    hub.publish("a", "passing", store=False)
    ab = [event for event in sent if event.data not in ("2", "5", "8")]
    assert hub.history("a", "b") == ab
    assert hub.history("a", "b", limit=2) == ab[-2:]
    assert hub.history("a", "b", limit=2, before=ab[-2].id) == ab[-4:-2]
    assert [getattr(event, "channel", None) for event in hub.history("c", limit=1)] == ["c"]
    with pytest.raises(HistoryLost):
        hub.history("a", before="1-1")
    with pytest.raises(ValueError, match="limit"):
        hub.history("a", limit=0)
