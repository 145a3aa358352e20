"""The broker contract: what a log keeps of each channel, and what counts as lost history."""

from __future__ import annotations

from pathlib import Path
from time import sleep

import pytest

from ssekit.brokers import Broker, Entry, HistoryLost, Retention
from tests.conftest import SHARED, URLS
from tests.logs import END, REMOVED, Open, body, data, everything, state
from tests.waiting import until

BOUNDS = "ssekit.brokers.contract"


def is_lost(broker: Broker, channel: str, after: str) -> bool:
    try:
        broker.read([channel], after, 1)
    except HistoryLost:
        return True
    return False


def kept(broker: Broker, channel: str) -> list[str]:
    return data(broker.history([channel], 100_000, None))


def publish(broker: Broker, channel: str, count: int) -> list[Entry]:
    return [broker.append(channel, body(n)) for n in range(count)]


def test_a_channel_keeps_its_last_events_and_at_most_twice_as_many(opened: Open) -> None:
    broker = opened(history=3)
    start = broker.tip()
    sent = publish(broker, "news", 20)
    after = [start, *(entry.id for entry in sent)]
    for n, cursor in enumerate(after):
        remaining = sent[n:]
        if len(remaining) <= 3:
            assert everything(broker, cursor, "news") == remaining
        elif len(remaining) > 6:
            assert is_lost(broker, "news", cursor)
        elif not is_lost(broker, "news", cursor):
            assert everything(broker, cursor, "news") == remaining
    assert 3 <= len(kept(broker, "news")) <= 6
    assert broker.history(["news"], 3, None) == sent[-3:]


def test_a_busy_channel_takes_nothing_from_a_quiet_one(opened: Open) -> None:
    broker = opened(history=5)
    start = broker.tip()
    quiet = publish(broker, "quiet", 2)
    publish(broker, "busy", 1500)
    assert everything(broker, start, "quiet") == quiet
    assert everything(broker, start, "silent") == []
    last = broker.append("quiet", body("last"))
    assert everything(broker, quiet[0].id, "quiet", "silent") == [quiet[1], last]
    with pytest.raises(HistoryLost):
        broker.read(["quiet", "busy"], quiet[1].id, 10)


def test_beyond_the_capacity_the_longest_channel_gives_up_its_oldest(opened: Open) -> None:
    broker = opened(history=50, capacity=40)  # a history above it raises it, to 50
    start = broker.tip()
    quiet = {f"quiet {n}": publish(broker, f"quiet {n}", 4) for n in range(5)}
    middle = publish(broker, "middle", 12)
    busy = publish(broker, "busy", 40)
    assert len(kept(broker, "busy")) + 12 + 20 == 50
    assert kept(broker, "busy") == data(busy[-18:])
    publish(broker, "another", 10)
    for name, sent in quiet.items():
        assert everything(broker, start, name) == sent
    lengths = [len(kept(broker, name)) for name in ("middle", "busy", "another")]
    assert sum(lengths) == 30
    assert max(lengths) - min(lengths) <= 2
    assert kept(broker, "middle") == data(middle[-lengths[0] :])
    assert is_lost(broker, "busy", busy[-lengths[1] - 2].id)
    assert not is_lost(broker, "busy", busy[-lengths[1] - 1].id)


def test_one_channel_may_fill_the_whole_capacity(opened: Open) -> None:
    broker = opened(history=1000, capacity=10)
    sent = publish(broker, "news", 1500)
    assert broker.history(["news"], 1000, None) == sent[-1000:]


def test_of_more_channels_than_the_capacity_each_newest_is_kept(opened: Open) -> None:
    broker = opened(history=2, capacity=20)
    start = broker.tip()
    sent = [broker.append(f"channel {n}", body(n)) for n in range(50)]
    found = [n for n in range(50) if kept(broker, f"channel {n}")]
    assert found == list(range(30, 50))
    for n in range(50):
        assert is_lost(broker, f"channel {n}", start) is (n < 30)
        assert everything(broker, sent[n].id, f"channel {n}") == []


def test_what_was_forgotten_is_known_of_each_channel(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{BOUNDS}.CHANNELS_REMEMBERED", 4)
    broker = opened(history=2, capacity=2)
    start = broker.tip()
    sent = [broker.append(f"channel {n}", body(n)) for n in range(2000)]
    # Whatever was trimmed is lost history, remembered or not ...
    for n in (0, 1, 500, *range(1990, 1998)):
        assert is_lost(broker, f"channel {n}", start), n
    # ... and nothing else is, of the channels that were forgotten last ...
    for n in range(1994, 2000):
        assert everything(broker, sent[n].id, f"channel {n}") == []
    # ... nor of any channel after the last that was trimmed.
    assert everything(broker, sent[1997].id, "silent", "channel 3") == []


def test_what_is_too_old_is_lost_history_but_a_value_is_not(opened: Open) -> None:
    broker = opened(max_age=0.3)
    start = broker.tip()
    value = broker.append("news", body("value"), key="k")
    old = publish(broker, "news", 3)
    publish(broker, "quiet", 1)
    until(lambda: is_lost(broker, "quiet", start), 10)  # The newest event has expired, too.
    assert is_lost(broker, "news", start)
    assert is_lost(broker, "news", old[1].id)
    assert everything(broker, old[2].id, "news") == []
    assert kept(broker, "news") == []
    opening = broker.opening(["news"], None)
    assert (opening.state, opening.history, opening.complete) == ([value], [], False)
    new = broker.append("news", body("new"))
    assert everything(broker, old[2].id, "news") == [new]
    assert broker.history(["news"], 10, None) == [new]


def test_values_and_passing_events_take_no_room(opened: Open) -> None:
    broker = opened(history=3, capacity=3)
    start = broker.tip()
    sent = publish(broker, "news", 2)
    for n in range(30):
        broker.append("news", body(n), key="k")
        broker.append("other", body(n), key=f"key {n}")
        broker.append("news", body(n), passing=True)
    found = everything(broker, start, "news")
    assert found[:2] == sent
    assert data(found[2:]) == ["29"]
    assert len(state(broker, "other")) == 30


def test_internal_channels_count_towards_nothing(opened: Open) -> None:
    broker = opened(history=5, capacity=5, max_keys=2)
    start = broker.tip()
    sent = publish(broker, "news", 5)
    for n in range(30):
        broker.append("\0members", body(n), key=f"key {n}")
    for n in range(20):
        assert broker.remove("\0members", f"key {n}", REMOVED) is not None
    assert everything(broker, start, "news") == sent
    assert len(state(broker, "\0members")) == 10
    assert is_lost(broker, "\0members", start)


def test_removals_in_internal_channels_are_forgotten_after_a_while(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = opened(max_age=0.05)
    start = broker.tip()
    rooms = [f"\0members {n}" for n in range(20)]
    for room in rooms:
        broker.append(room, body("gone"), key="gone")
        broker.remove(room, "gone", REMOVED)
    broker.append(rooms[0], body("stays"), key="stays")
    sleep(0.1)
    publish(broker, "news", 48)
    assert not any(is_lost(broker, room, start) for room in rooms), "max_age is that of events"
    monkeypatch.setattr(f"{BOUNDS}.INTERNAL_KEPT", 0.05)
    publish(broker, "news", 48)  # Whatever is written tidies other channels, too.
    assert all(is_lost(broker, room, start) for room in rooms)
    assert state(broker, rooms[0]) == {"stays": "stays"}


def test_those_who_follow_get_all_of_the_newest_entries(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{BOUNDS}.RECENT", 6)
    broker = opened(history=1, capacity=1)
    cursors = [broker.tip()]
    sent: list[Entry] = []
    for n in range(20):
        options = ({}, {"key": "k"}, {"passing": True})[n % 3]
        sent.append(broker.append("ab"[n % 2], body(n), **options))
        cursors.append(sent[-1].id)
        assert broker.recent(1000)[0] == sent[-6:]
        for missing, cursor in enumerate(reversed(cursors)):
            if missing <= 6:
                entries = broker.follow(cursor, 0)[0]
                assert entries == (sent[-missing:] if missing else [])
            else:
                with pytest.raises(HistoryLost):
                    broker.follow(cursor, 0)


def test_a_channel_keeps_all_events_of_its_producer(opened: Open) -> None:
    broker = opened(history=3, capacity=5)
    broker.beat("holder", first=True)
    before = publish(broker, "work", 2)
    broker.produce("work", "holder")
    sent = [broker.append("work", body(n), holder="holder") for n in range(50)]
    publish(broker, "other", 5)
    assert broker.history(["work"], 100, None) == before + sent
    opening = broker.opening(["work"], None)
    assert opening.complete
    assert opening.history == before + sent
    assert everything(broker, before[0].id, "work", limit=7) == [before[1], *sent]


def test_a_producer_can_fill_a_log_only_up_to_a_bound(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{BOUNDS}.MOST_PRODUCED", 10)
    broker = opened(history=3)
    broker.beat("holder", first=True)
    broker.produce("work", "holder")
    sent = [broker.append("work", body(n), holder="holder") for n in range(40)]
    assert broker.history(["work"], 100, None) == sent[-10:]
    assert not broker.opening(["work"], None).complete
    assert is_lost(broker, "work", sent[28].id)
    assert everything(broker, sent[29].id, "work") == sent[30:]


def test_produced_channels_are_given_up_whole_in_the_order_in_which_they_finished(
    opened: Open,
) -> None:
    broker = opened(history=3, capacity=25)
    broker.beat("holder", first=True)
    start = broker.tip()
    for n in range(3):
        broker.produce(f"work {n}", "holder")
        for _ in range(10):
            broker.append(f"work {n}", body(n), holder="holder")
    chat = publish(broker, "chat", 3)
    for n in (1, 0):
        assert broker.finish(f"work {n}", END, "finished", holder="holder")
    assert [len(kept(broker, f"work {n}")) for n in range(3)] == [10, 10, 10]
    assert broker.finish("work 2", END, "finished", holder="holder")
    assert [len(kept(broker, f"work {n}")) for n in range(3)] == [10, 0, 10]
    assert is_lost(broker, "work 1", start)
    assert not broker.opening(["work 1"], None).complete
    assert broker.status("work 1") == ("finished", "finished")
    assert broker.history(["chat"], 10, None) == chat
    assert broker.opening(["work 0"], None).complete


def test_a_channel_that_is_reopened_is_trimmed_like_others(opened: Open) -> None:
    broker = opened(history=3)
    broker.beat("holder", first=True)
    broker.produce("work", "holder")
    sent = [broker.append("work", body(n), holder="holder") for n in range(20)]
    broker.finish("work", END, "finished", holder="holder")
    assert broker.history(["work"], 100, None) == sent
    assert broker.reopen("work")
    sent += [broker.append("work", body("after")) for _ in range(2)]
    assert 3 <= len(kept(broker, "work")) <= 6
    assert broker.history(["work"], 3, None) == sent[-3:]
    assert is_lost(broker, "work", sent[0].id)


def test_an_end_is_remembered_for_a_while_after_its_events(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{BOUNDS}.END_REMEMBERED", 1.5)
    broker = opened(max_age=0.3)
    broker.append("work", body("x"))
    value = broker.append("work", body("a value stays"), key="k")
    broker.finish("work", END, "finished")
    broker.finish("bare", END, "finished")
    sleep(0.4)
    assert kept(broker, "work") == []
    assert broker.status("work") == ("finished", "finished")
    until(lambda: broker.status("work").state == "open", 10)
    until(lambda: broker.status("bare").state == "open", 10)
    assert broker.ends(["work", "bare"]) == {}
    assert broker.opening(["work"], None).state == [value]
    anew = [broker.append("work", body("anew")) for _ in range(2)]
    assert broker.status("work").state == "open"
    assert broker.history(["work"], 10, None)[-1] == anew[-1]


def test_an_end_is_not_forgotten_while_events_are_kept(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{BOUNDS}.END_REMEMBERED", 0)
    broker = opened()
    broker.append("work", body("x"))
    broker.finish("work", END, "finished")
    broker.finish("bare", END, "finished")
    until(lambda: broker.status("bare").state == "open", 10)
    assert broker.status("work") == ("finished", "finished")


class TestASharedLog:
    @pytest.fixture(params=SHARED)
    def url(self, request: pytest.FixtureRequest, tmp_path: Path) -> str:
        return URLS[request.param](request, tmp_path)

    def test_its_creator_decides_what_it_keeps(self, opened: Open) -> None:
        one, two = opened(history=3, max_keys=2), opened(history=50)
        one.tip()
        for n in range(20):
            two.append("news", body(n))
        assert 3 <= len(kept(two, "news")) <= 6

    @pytest.mark.parametrize("first", ["tip", "recent", "opening", "append"])
    def test_only_what_is_given_explicitly_changes_it(self, opened: Open, first: str) -> None:
        opened(history=3, capacity=3).append("news", body("x"))
        two = opened(history=50, capacity=50, given=frozenset({"history"}))
        {
            "tip": two.tip,
            "recent": lambda: two.recent(1),
            "opening": lambda: two.opening(["news"], 0),
            "append": lambda: two.append("news", body("x")),
        }[first]()
        three = opened(history=1, max_age=0.001)
        for n in range(120):
            three.append("news", body(n))
        found = kept(three, "news")
        assert 50 <= len(found) <= 100  # and a history above the capacity raises it
        assert found[-50:] == [str(n) for n in range(70, 120)]

    def test_every_broker_can_say_what_it_keeps(self, opened: Open) -> None:
        assert opened(history=7).retention() == Retention(history=7)  # there is no log yet
        opened(history=3, capacity=3).tip()
        assert opened(history=7).retention() == Retention(history=3, capacity=3)
        given = opened(history=50, max_age=1.5, given=frozenset({"history", "max_age"}))
        expected = Retention(history=50, capacity=3, max_age=1.5)
        assert given.retention() == expected
        given.tip()
        assert opened().retention() == expected

    def test_a_smaller_history_trims_what_is_there(self, opened: Open) -> None:
        publish(opened(), "news", 30)
        two = opened(history=3, given=frozenset({"history"}))
        two.append("news", body("last"))
        assert 3 <= len(kept(two, "news")) <= 6

    def test_a_max_age_that_is_given_later_holds_for_what_is_there(self, opened: Open) -> None:
        one = opened()
        publish(one, "news", 3)
        opened(max_age=0.2, given=frozenset({"max_age"})).tip()
        until(lambda: kept(one, "news") == [], 10)
        opened(given=frozenset({"max_age"})).tip()
        sent = publish(one, "news", 3)
        sleep(0.3)
        assert one.history(["news"], 3, None) == sent
