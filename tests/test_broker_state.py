"""The broker contract: keys, history, ends, producers, members and leases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ssekit.brokers import Broker, Entry, Held, HistoryLost, LeaseEnded
from ssekit.errors import ChannelBusy, ChannelFinished, InvalidEvent
from tests.conftest import SHARED, URLS
from tests.logs import END, REMOVED, Open, body, data, everything, state

MEMBERS = "\0members of news"


class TestKeys:
    def test_the_newest_entry_of_each_key_is_the_state_oldest_first(self, broker: Broker) -> None:
        broker.append("fx", body("1"), key="EUR")
        usd = broker.append("fx", body("2"), key="USD")
        eur = broker.append("fx", body("3"), key="EUR")
        broker.append("fx", body("no key"))
        other = broker.append("other", body("4"), key="EUR")
        assert broker.opening(["fx"], 0).state == [usd, eur]
        assert broker.opening(["fx", "other"], 0).state == [usd, eur, other]
        assert broker.opening(["nothing"], 0).state == []

    def test_who_lags_reads_the_newest_of_each_key(self, broker: Broker) -> None:
        start = broker.tip()
        sent = [broker.append("fx", body(n), key="ab"[n % 2]) for n in range(9)]
        event = broker.append("fx", body("event"))
        assert everything(broker, start, "fx") == [sent[7], sent[8], event]
        assert everything(broker, sent[7].id, "fx") == [sent[8], event]
        last = broker.append("fx", body("last"), key="b")
        assert everything(broker, start, "fx") == [sent[8], event, last]

    def test_who_reads_in_pieces_skips_what_is_superseded_meanwhile(self, broker: Broker) -> None:
        start = broker.tip()
        broker.append("fx", body("a1"), key="a")
        broker.append("fx", body("b1"), key="b")
        (first,), cursor = broker.read(["fx"], start, 1)
        broker.append("fx", body("a2"), key="a")
        broker.append("fx", body("b2"), key="b")
        assert data([first, *everything(broker, cursor, "fx", limit=1)]) == ["a1", "a2", "b2"]

    def test_a_superseded_entry_is_no_lost_history(
        self, opened: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("ssekit.brokers.contract.RECENT", 5)
        broker = opened(history=1, capacity=1)
        start = broker.tip()
        for n in range(50):
            last = broker.append("fx", body(n), key="k")
        assert everything(broker, start, "fx") == [last]

    def test_a_removed_key_is_gone_and_its_removal_is_read(self, broker: Broker) -> None:
        start = broker.tip()
        a = broker.append("fx", body("a"), key="a")
        broker.append("fx", body("b"), key="b")
        removal = broker.remove("fx", "b", REMOVED)
        assert removal is not None
        assert (removal.key, removal.body, removal.passing) == ("b", REMOVED, False)
        assert broker.opening(["fx"], None) == ([a], [], True, {}, removal.id)
        assert everything(broker, start, "fx") == [a, removal]
        assert broker.history(["fx"], 10, None) == []
        tip = broker.tip()
        assert broker.remove("fx", "b", REMOVED) is None
        assert broker.remove("fx", "never", REMOVED) is None
        assert broker.tip() == tip
        again = broker.append("fx", body("again"), key="b")
        assert everything(broker, start, "fx") == [a, removal, again]
        assert state(broker, "fx") == {"a": "a", "b": "again"}

    def test_a_trimmed_removal_is_lost_history(self, opened: Open) -> None:
        broker = opened(history=2)
        value = broker.append("fx", body("a"), key="a")
        broker.remove("fx", "a", REMOVED)
        for n in range(10):
            broker.append("fx", body(n))
        with pytest.raises(HistoryLost):
            broker.read(["fx"], value.id, 10)

    def test_a_key_too_many_is_refused_and_not_stored(self, opened: Open) -> None:
        broker = opened(max_keys=2)
        broker.append("fx", body("1"), key="a")
        broker.append("fx", body("2"), key="b")
        tip = broker.tip()
        with pytest.raises(InvalidEvent, match="max_keys"):
            broker.append("fx", body("3"), key="c")
        assert broker.tip() == tip
        broker.append("fx", body("4"), key="a")
        broker.append("other", body("5"), key="c")
        broker.remove("fx", "b", REMOVED)
        broker.append("fx", body("6"), key="c")
        assert state(broker, "fx") == {"a": "4", "c": "6"}

    @pytest.mark.parametrize("key", ["", "\u6b22", "it's", '{"a"}', "a b", "k" * 1000, "1", "01"])
    def test_a_key_is_any_text(self, broker: Broker, key: str) -> None:
        broker.append("fx", body("another"), key="another")
        entry = broker.append("fx", body("x"), key=key)
        assert entry.key == key
        assert broker.opening(["fx"], 0).state[1] == entry
        assert broker.remove("fx", key, REMOVED) is not None
        assert state(broker, "fx") == {"another": "another"}


class TestPassing:
    def test_a_passing_event_is_for_those_who_follow(self, broker: Broker) -> None:
        start = broker.tip()
        passing = broker.append("news", body("typing"), passing=True)
        assert passing.passing
        sent = broker.append("news", body("x"))
        assert broker.follow(start, 1)[0] == [passing, sent]
        assert everything(broker, start, "news") == [sent]
        assert broker.history(["news"], 10, None) == [sent]
        assert broker.opening(["news"], None).history == [sent]

    def test_the_cursor_at_a_passing_event_is_one_like_others(self, broker: Broker) -> None:
        passing = broker.append("news", body("typing"), passing=True)
        assert broker.tip() == passing.id
        assert broker.read(["news"], passing.id, 10) == ([], passing.id)
        sent = broker.append("news", body("x"))
        assert everything(broker, passing.id, "news") == [sent]


class TestHistory:
    def test_history_is_the_last_events_without_a_key_oldest_first(self, broker: Broker) -> None:
        sent = [broker.append("ab"[n % 2], body(n)) for n in range(10)]
        broker.append("a", body("value"), key="k")
        broker.append("c", body("other"))
        assert broker.history(["a"], 3, None) == [sent[4], sent[6], sent[8]]
        assert broker.history(["a", "b"], 3, None) == sent[-3:]
        assert broker.history(["b", "a"], 100, None) == sent
        assert broker.history(["a"], 0, None) == []
        assert broker.history(["nothing"], 5, None) == []
        assert broker.history([], 5, None) == []

    def test_history_goes_on_before_what_it_has_returned(self, broker: Broker) -> None:
        sent = [broker.append("ab"[n % 2], body(n)) for n in range(10)]
        found: list[Entry] = []
        before = None
        while page := broker.history(["a", "b"], 3, before):
            found = page + found
            before = page[0].id
        assert found == sent
        assert broker.history(["a"], 2, sent[4].id) == [sent[0], sent[2]]

    def test_an_opening_has_as_many_events_as_were_asked_for(self, broker: Broker) -> None:
        sent = [broker.append("ab"[n % 2], body(n)) for n in range(6)]
        value = broker.append("a", body("value"), key="k")
        end = broker.finish("b", END, "finished")
        assert end is not None
        expected = ([value], sent[-2:], True, {"b": end}, end.id)
        assert broker.opening(["a", "b", "c"], 2) == expected
        assert broker.opening(["a", "b"], None).history == sent
        assert broker.opening(["a"], 0).history == []
        assert broker.opening(["c"], None) == ([], [], True, {}, end.id)

    def test_an_opening_says_whether_the_beginning_is_there(self, opened: Open) -> None:
        broker = opened(history=2)
        for n in range(10):
            broker.append("busy", body(n))
        broker.append("quiet", body("x"))
        assert broker.opening(["quiet"], None).complete
        assert not broker.opening(["busy"], None).complete
        assert not broker.opening(["busy", "quiet"], 0).complete


class TestEnds:
    def test_a_channel_is_finished_once(self, broker: Broker) -> None:
        start = broker.tip()
        sent = broker.append("work", body("x"))
        broker.append("work", body("value"), key="k")
        end = broker.finish("work", END, "failed")
        assert end is not None
        assert (end.channel, end.body, end.key, end.passing) == ("work", END, None, False)
        tip = broker.tip()
        assert tip == end.id
        assert broker.finish("work", END, "finished") is None
        assert broker.status("work") == ("finished", "failed")
        assert broker.status("other") == ("open", None)
        assert broker.ends(["work", "other"]) == {"work": end}
        for call in (
            lambda: broker.append("work", body("y")),
            lambda: broker.append("work", body("y"), passing=True),
            lambda: broker.append("work", body("y"), key="k"),
            lambda: broker.remove("work", "k", REMOVED),
            lambda: broker.produce("work", "holder"),
        ):
            broker.beat("holder", first=True)
            with pytest.raises(ChannelFinished) as raised:
                call()
            assert (raised.value.channel, raised.value.reason) == ("work", "failed")
        assert broker.tip() == tip
        assert data(everything(broker, start, "work"))[:2] == ["x", "value"]
        assert everything(broker, start, "work")[2:] == [end]
        assert broker.history(["work"], 10, None) == [sent]

    def test_an_end_stays_when_events_are_trimmed(self, opened: Open) -> None:
        broker = opened(history=1, capacity=1)
        sent = broker.append("work", body("x"))
        end = broker.finish("work", END, "finished")
        broker.append("other", body("y"))
        assert everything(broker, sent.id, "work") == [end]
        assert broker.ends(["work"]) == {"work": end}

    def test_a_reopened_channel_takes_events_again(self, broker: Broker) -> None:
        start = broker.tip()
        sent = broker.append("work", body("x"))
        end = broker.finish("work", END, "finished")
        assert broker.reopen("work")
        assert not broker.reopen("work")
        assert broker.status("work") == ("open", None)
        assert broker.ends(["work"]) == {}
        again = broker.append("work", body("again"))
        assert everything(broker, start, "work") == [sent, again]
        assert broker.follow(start, 1)[0] == [sent, end, again]
        second = broker.finish("work", END, "cancelled")
        assert second is not None
        assert everything(broker, start, "work") == [sent, again, second]


class TestProducers:
    def test_a_channel_has_one_producer(self, broker: Broker) -> None:
        assert broker.beat("one", first=True)
        assert broker.beat("two", first=True)
        broker.produce("work", "one")
        assert broker.status("work") == ("producing", None)
        for holder in ("one", "two"):
            with pytest.raises(ChannelBusy) as raised:
                broker.produce("work", holder)
            assert raised.value.channel == "work"
        assert broker.held("one") == [Held("work")]
        assert broker.held("two") == []
        sent = [broker.append("work", body("x"), holder="one"), broker.append("work", body("y"))]
        assert broker.history(["work"], 10, None) == sent
        end = broker.finish("work", END, "finished", holder="one")
        assert end is not None
        assert broker.held("one") == []
        assert broker.status("work") == ("finished", "finished")

    def test_who_does_not_produce_a_channel_can_neither_send_nor_finish(
        self, broker: Broker
    ) -> None:
        broker.beat("one", first=True)
        broker.beat("two", first=True)
        broker.produce("work", "one")
        tip = broker.tip()
        for channel in ("work", "other"):
            with pytest.raises(ChannelFinished) as raised:
                broker.append(channel, body("x"), holder="two")
            assert (raised.value.channel, raised.value.reason) == (channel, None)
            assert broker.finish(channel, END, "lost", holder="two") is None
        assert broker.tip() == tip
        assert broker.status("work") == ("producing", None)

    def test_a_producer_that_was_ended_can_send_no_more(self, broker: Broker) -> None:
        broker.beat("one", first=True)
        broker.produce("work", "one")
        broker.append("work", body("x"), holder="one")
        assert broker.finish("work", END, "cancelled") is not None
        assert broker.held("one") == []
        with pytest.raises(ChannelFinished) as raised:
            broker.append("work", body("y"), holder="one")
        assert raised.value.reason == "cancelled"
        assert broker.finish("work", END, "finished", holder="one") is None
        broker.reopen("work")
        with pytest.raises(ChannelFinished) as raised:
            broker.append("work", body("y"), holder="one")
        assert raised.value.reason is None

    def test_a_channel_is_produced_anew_when_it_was_reopened(self, broker: Broker) -> None:
        broker.beat("one", first=True)
        for _ in range(2):
            broker.produce("work", "one")
            broker.append("work", body("x"), holder="one")
            broker.finish("work", END, "finished", holder="one")
            assert broker.reopen("work")
        assert data(broker.history(["work"], 10, None)) == ["x", "x"]

    def test_only_who_has_a_lease_can_produce(self, broker: Broker) -> None:
        with pytest.raises(LeaseEnded):
            broker.produce("work", "nobody")
        broker.beat("one", first=True)
        assert broker.end_lease("one", 1)
        with pytest.raises(LeaseEnded):
            broker.produce("work", "one")
        assert broker.status("work") == ("open", None)


class TestLeases:
    def test_beats_count_up(self, broker: Broker) -> None:
        assert not broker.beat("one")
        assert broker.leases() == {}
        assert broker.beat("one", first=True)
        assert broker.beat("two", first=True)
        assert broker.beat("one")
        assert broker.leases() == {"one": 2, "two": 1}

    def test_a_lease_that_goes_on_beating_is_not_ended(self, broker: Broker) -> None:
        broker.beat("one", first=True)
        broker.produce("work", "one")
        seen = broker.leases()["one"]
        assert broker.beat("one")
        assert not broker.end_lease("one", seen)
        assert broker.beat("one")
        assert broker.end_lease("one", broker.leases()["one"])
        assert not broker.beat("one")

    def test_an_ended_lease_is_there_until_it_holds_nothing(self, broker: Broker) -> None:
        broker.beat("one", first=True)
        broker.produce("work", "one")
        broker.join({(MEMBERS, "ann"): body("ann")}, "one")
        assert broker.end_lease("one", 1)
        assert broker.leases() == {"one": -1}
        assert not broker.beat("one")
        # The one that ended it may have died right then: the next one continues.
        assert broker.end_lease("one", -1)
        assert broker.end_lease("one", 1)
        assert set(broker.held("one")) == {Held("work"), Held(MEMBERS, "ann")}
        assert broker.finish("work", END, "lost", holder="one") is not None
        assert broker.leases() == {"one": -1}
        broker.leave({(MEMBERS, "ann"): REMOVED}, "one")
        assert broker.leases() == {}
        assert broker.held("one") == []
        assert not broker.beat("one")

    def test_a_lease_that_holds_nothing_is_forgotten_at_once(self, broker: Broker) -> None:
        broker.beat("one", first=True)
        assert broker.end_lease("one", 1)
        assert broker.leases() == {}
        assert not broker.beat("one")

    def test_a_lease_may_end_without_losing_what_another_holds(self, broker: Broker) -> None:
        broker.beat("one", first=True)
        broker.beat("two", first=True)
        broker.produce("work", "two")
        broker.end_lease("one", 1)
        assert broker.held("two") == [Held("work")]
        assert broker.leases() == {"two": 1}


class TestMembers:
    def test_a_member_is_there_until_its_last_holder_leaves(self, broker: Broker) -> None:
        start = broker.tip()
        for holder in ("one", "two"):
            broker.beat(holder, first=True)
            broker.join({(MEMBERS, "ann"): body("Ann")}, holder)
        assert broker.held("one") == broker.held("two") == [Held(MEMBERS, "ann")]
        (joined,) = everything(broker, start, MEMBERS)
        assert (joined.key, joined.body, joined.passing) == ("ann", body("Ann"), False)
        broker.leave({(MEMBERS, "ann"): REMOVED}, "one")
        assert broker.held("one") == []
        assert state(broker, MEMBERS) == {"ann": "Ann"}
        broker.leave({(MEMBERS, "ann"): REMOVED}, "one")
        assert state(broker, MEMBERS) == {"ann": "Ann"}
        broker.leave({(MEMBERS, "ann"): REMOVED}, "two")
        assert state(broker, MEMBERS) == {}
        (left,) = everything(broker, joined.id, MEMBERS)
        assert (left.key, left.body) == ("ann", REMOVED)

    def test_a_member_with_another_value_is_an_entry_again(self, broker: Broker) -> None:
        broker.beat("one", first=True)
        broker.beat("two", first=True)
        broker.join({(MEMBERS, "ann"): body("Ann"), (MEMBERS, "bob"): body("Bob")}, "one")
        tip = broker.tip()
        broker.join({(MEMBERS, "ann"): body("Ann"), (MEMBERS, "bob"): body("Robert")}, "two")
        broker.join({(MEMBERS, "bob"): body("Robert")}, "one")
        assert data(everything(broker, tip, MEMBERS)) == ["Robert"]
        assert state(broker, MEMBERS) == {"ann": "Ann", "bob": "Robert"}
        broker.leave(
            {(MEMBERS, "ann"): REMOVED, (MEMBERS, "bob"): REMOVED, (MEMBERS, "eve"): REMOVED}, "two"
        )
        assert state(broker, MEMBERS) == {"ann": "Ann", "bob": "Robert"}

    def test_members_of_several_channels_are_apart(self, broker: Broker) -> None:
        broker.beat("one", first=True)
        more = "\0members of more"
        broker.join({(MEMBERS, "ann"): body("Ann"), (more, "ann"): body("Ann")}, "one")
        assert set(broker.held("one")) == {Held(MEMBERS, "ann"), Held(more, "ann")}
        broker.leave({(MEMBERS, "ann"): REMOVED}, "one")
        assert state(broker, MEMBERS) == {}
        assert state(broker, "\0members of more") == {"ann": "Ann"}

    def test_who_left_and_comes_back_is_an_entry_again(self, broker: Broker) -> None:
        start = broker.tip()
        broker.beat("one", first=True)
        for _ in range(2):
            broker.join({(MEMBERS, "ann"): body("Ann")}, "one")
            broker.leave({(MEMBERS, "ann"): REMOVED}, "one")
        assert len(broker.follow(start, 1)[0]) == 4

    def test_only_who_has_a_lease_can_join(self, broker: Broker) -> None:
        with pytest.raises(LeaseEnded):
            broker.join({(MEMBERS, "ann"): body("Ann")}, "nobody")
        broker.beat("one", first=True)
        broker.join({(MEMBERS, "ann"): body("Ann")}, "one")
        broker.end_lease("one", 1)
        with pytest.raises(LeaseEnded):
            broker.join({(MEMBERS, "bob"): body("Bob")}, "one")
        assert state(broker, MEMBERS) == {"ann": "Ann"}

    def test_many_join_and_leave_in_one_call(self, broker: Broker) -> None:
        broker.beat("one", first=True)
        names = [f"member {n}" for n in range(2000)]
        broker.join({(MEMBERS, name): body(name) for name in names}, "one")
        assert state(broker, MEMBERS) == {name: name for name in names}
        assert len(broker.held("one")) == 2000
        broker.leave({(MEMBERS, name): REMOVED for name in names[1:]}, "one")
        assert list(state(broker, MEMBERS)) == ["member 0"]


class TestASharedLog:
    @pytest.fixture(params=SHARED)
    def url(self, request: pytest.FixtureRequest, tmp_path: Path) -> str:
        return URLS[request.param](request, tmp_path)

    def test_of_several_who_do_the_same_at_once_one_does_it(self, opened: Open) -> None:
        brokers = [opened() for _ in range(6)]
        brokers[0].beat("dead", first=True)
        brokers[0].join({(MEMBERS, "ann"): body("Ann")}, "dead")
        start = brokers[0].tip()

        def produce(broker: Broker, holder: str) -> bool:
            broker.beat(holder, first=True)
            try:
                broker.produce("work", holder)
            except ChannelBusy:
                return False
            return True

        with ThreadPoolExecutor() as pool:
            holders = [f"holder {n}" for n in range(6)]
            assert list(pool.map(produce, brokers, holders)).count(True) == 1
            assert all(pool.map(lambda broker: broker.end_lease("dead", 1), brokers))
            list(pool.map(lambda b: b.leave({(MEMBERS, "ann"): REMOVED}, "dead"), brokers))
            ends = list(pool.map(lambda broker: broker.finish("work", END, "lost"), brokers))
        (end,) = (entry for entry in ends if entry is not None)
        entries, _ = brokers[0].follow(start, 1)
        assert [entry.body for entry in entries] == [REMOVED, end.body]
        assert "dead" not in brokers[0].leases()
