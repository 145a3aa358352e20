"""Whatever happens to a log: its readers end with the last values, and miss nothing unnoticed.

Hypothesis publishes, removes, finishes, reopens, trims and forgets at random.  Readers read now and
then, in pieces, cut and resumed anywhere; they come and go, and several processes write.  What a
reader was sent is compared with all that was published, by rules that know no broker:

* an event without a key, a removal or an end is missing only if the reader was told so,
* everything comes once, and in the order in which it was published,
* who has read all has the last value of each key, and never saw an older one after a newer one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from ssekit.brokers import Broker, Entry, HistoryLost, Retention, connect, parse_id
from ssekit.errors import ChannelBusy, ChannelFinished, InvalidEvent
from tests.conftest import URLS, examples, new_logs
from tests.logs import END, REMOVED, body

CHANNELS = ("a", "b", "c")
KEYS = ("k", "l", "m")
MAX_KEYS = 2
SMALL, ROOMY = Retention(3, 7, MAX_KEYS), Retention(40, 100, MAX_KEYS)


@dataclass
class Reader:
    """A client's memory: what it was sent, in order, since it began anew."""

    channels: tuple[str, ...]
    cursor: str
    since: int = 0
    """The seq of the last opening."""
    values: dict[tuple[str, str], Entry] = field(default_factory=dict)
    seen: list[Entry] = field(default_factory=list)


class Log(RuleBasedStateMachine):
    urls: Iterator[str]

    @initialize(retention=st.sampled_from((SMALL, ROOMY)))
    def begin(self, retention: Retention) -> None:
        self.retention = retention
        url = next(self.urls)
        self.brokers = [connect(url, retention)]
        if not url.startswith("memory"):
            self.brokers.append(connect(url, Retention()))
        self.published: list[Entry] = []
        self.withdrawn: set[str] = set()  # ends of channels that were reopened
        self.values: dict[tuple[str, str], Entry] = {}
        self.ends: dict[str, Entry] = {}
        self.producers: dict[str, str] = {}
        self.start = self.brokers[0].tip()
        for broker in self.brokers:
            assert broker.tip() == self.start
        assert self.brokers[0].beat("holder", first=True)
        self.readers = [Reader(("a",), self.start), Reader(CHANNELS, self.start)]

    def teardown(self) -> None:
        for broker in self.brokers:
            broker.close()

    @property
    def tip(self) -> str:
        return self.published[-1].id if self.published else self.start

    def note(self, entry: Entry) -> None:
        assert parse_id(entry.id)[1] == len(self.published) + 1
        assert entry.time >= max((e.time for e in self.published), default=0)
        self.published.append(entry)

    # -- what is published

    @rule(
        who=st.integers(0, 1),
        channel=st.sampled_from(CHANNELS),
        kind=st.sampled_from(("event", "event", "k", "l", "m", "passing")),
        times=st.integers(1, 5),
        holds=st.booleans(),
    )
    def publish(self, who: int, channel: str, kind: str, times: int, holds: bool) -> None:
        for _ in range(times):
            options: dict[str, Any] = {"passing": kind == "passing"}
            if kind in KEYS:
                options["key"] = kind
            if holds and channel in self.producers:
                options["holder"] = self.producers[channel]
            send = body(len(self.published))
            full = sum(1 for of, _ in self.values if of == channel) >= MAX_KEYS
            try:
                entry = self.broker(who).append(channel, send, **options)
            except ChannelFinished:
                assert channel in self.ends
            except InvalidEvent:
                assert full
                assert (channel, kind) not in self.values
            else:
                assert channel not in self.ends
                assert (entry.channel, entry.body) == (channel, send)
                self.note(entry)
                if entry.key is not None:
                    assert not full or (channel, kind) in self.values
                    self.values[channel, entry.key] = entry

    @rule(who=st.integers(0, 1), channel=st.sampled_from(CHANNELS), key=st.sampled_from(KEYS))
    def remove(self, who: int, channel: str, key: str) -> None:
        try:
            entry = self.broker(who).remove(channel, key, REMOVED)
        except ChannelFinished:
            assert channel in self.ends
            return
        assert channel not in self.ends
        assert (entry is not None) is ((channel, key) in self.values)
        if entry is not None:
            self.note(entry)
            del self.values[channel, key]

    @rule(who=st.integers(0, 1), channel=st.sampled_from(CHANNELS))
    def finish(self, who: int, channel: str) -> None:
        entry = self.broker(who).finish(channel, END, "finished")
        assert (entry is None) is (channel in self.ends)
        if entry is not None:
            self.note(entry)
            self.ends[channel] = entry
            self.producers.pop(channel, None)

    @rule(who=st.integers(0, 1), channel=st.sampled_from(CHANNELS))
    def reopen(self, who: int, channel: str) -> None:
        assert self.broker(who).reopen(channel) is (channel in self.ends)
        if channel in self.ends:
            self.withdrawn.add(self.ends.pop(channel).id)

    @rule(who=st.integers(0, 1), channel=st.sampled_from(CHANNELS))
    def produce(self, who: int, channel: str) -> None:
        try:
            self.broker(who).produce(channel, "holder")
        except ChannelFinished:
            assert channel in self.ends
        except ChannelBusy:
            assert channel in self.producers
        else:
            assert channel not in self.ends
            assert channel not in self.producers
            self.producers[channel] = "holder"

    def broker(self, who: int) -> Broker:
        return self.brokers[who % len(self.brokers)]

    # -- what is read

    @rule(
        who=st.integers(0, 1), n=st.integers(0, 1), limit=st.integers(1, 4), times=st.integers(1, 9)
    )
    def read(self, who: int, n: int, limit: int, times: int) -> None:
        for _ in range(times):
            self.step(self.readers[n], self.broker(who), limit)

    def step(self, reader: Reader, broker: Broker, limit: int) -> bool:
        """One read; false at the end of the log.  After lost history there is an opening."""
        try:
            entries, cursor = broker.read(reader.channels, reader.cursor, limit)
        except HistoryLost:
            self.open(reader, broker)
            return True
        assert len(entries) <= limit
        for entry in entries:
            assert not entry.passing
            assert entry == self.published[parse_id(entry.id)[1] - 1], "as it was published"
            assert entry.channel in reader.channels
            assert parse_id(entry.id)[1] > parse_id(reader.cursor)[1]
            self.show(reader, entry)
        missing = self.kept_by_rule(reader, reader.cursor, cursor) - {e.id for e in entries}
        assert not missing, "nothing is missing unnoticed"
        more = cursor != reader.cursor
        reader.cursor = cursor
        return more

    def show(self, reader: Reader, entry: Entry) -> None:
        if reader.seen:
            assert parse_id(entry.id)[1] > parse_id(reader.seen[-1].id)[1], "once and in order"
        reader.seen.append(entry)
        if entry.key is not None:
            held = reader.values.get((entry.channel, entry.key))
            assert held is None or parse_id(held.id)[1] < parse_id(entry.id)[1]
            if entry.body == REMOVED:
                reader.values.pop((entry.channel, entry.key), None)
            else:
                reader.values[entry.channel, entry.key] = entry

    def kept_by_rule(self, reader: Reader, after: str, upto: str) -> set[str]:
        """The ids that a reader gets, or is told that it does not, whatever happens."""
        found = self.published[parse_id(after)[1] : parse_id(upto)[1]]
        return {
            entry.id
            for entry in found
            if entry.channel in reader.channels
            and not entry.passing
            and entry.id not in self.withdrawn
            and (entry.key is None or entry.body == REMOVED)
        }

    def open(self, reader: Reader, broker: Broker) -> None:
        before = reader.values
        opening = broker.opening(reader.channels, None)
        assert opening.tip == self.tip
        reader.cursor, reader.seen = opening.tip, []
        reader.values = {(e.channel, e.key or ""): e for e in opening.state}
        assert reader.values == self.current(reader)
        for of, value in reader.values.items():
            assert of not in before or parse_id(before[of].id)[1] <= parse_id(value.id)[1]
        order = [parse_id(entry.id)[1] for entry in opening.state]
        assert order == sorted(order)
        of_ends = {name: end for name, end in self.ends.items() if name in reader.channels}
        assert opening.ends == of_ends

    def current(self, reader: Reader) -> dict[tuple[str, str], Entry]:
        return {of: value for of, value in self.values.items() if of[0] in reader.channels}

    @rule(
        who=st.integers(0, 1), channels=st.sets(st.sampled_from(CHANNELS)), limit=st.integers(0, 9)
    )
    def look_back(self, who: int, channels: set[str], limit: int) -> None:
        events = [
            entry
            for entry in self.published
            if entry.channel in channels
            and entry.key is None
            and not entry.passing
            and entry.body != END
        ]
        found = self.broker(who).history(channels, limit, None)
        assert len(found) <= limit
        assert [parse_id(entry.id) for entry in found] == sorted(parse_id(e.id) for e in found)
        for channel in channels:  # the last ones of each, whichever channel was trimmed
            own = [entry for entry in found if entry.channel == channel]
            assert own == [e for e in events if e.channel == channel][-len(own) :] or not own
        opening = self.broker(who).opening(channels, None)
        if opening.complete:
            assert opening.history == events, "nothing is missing before them"

    @rule(who=st.integers(0, 1), back=st.integers(0, 8))
    def follow(self, who: int, back: int) -> None:
        since = max(0, len(self.published) - back)
        after = self.published[since - 1].id if since else self.start
        assert self.broker(who).follow(after, 0)[0] == self.published[since:]
        recent, tip = self.broker(who).recent(back)
        assert recent == (self.published[-back:] if back else [])
        assert tip == self.tip

    @rule(n=st.integers(0, 1))
    def come_anew(self, n: int) -> None:
        self.readers[n].values = {}
        self.open(self.readers[n], self.brokers[0])

    @invariant()
    def the_newest_events_are_kept(self) -> None:
        for channel in CHANNELS:
            own = [e for e in self.published if e.channel == channel and not e.passing]
            newest = [e for e in own if e.key is None and e.body != END][-1:]
            if len(self.published) <= self.retention.capacity:
                assert self.brokers[-1].history([channel], 1, None) == newest
            status = self.brokers[-1].status(channel).state
            assert status == (
                "finished"
                if channel in self.ends
                else "producing"
                if channel in self.producers
                else "open"
            )

    @invariant()
    def who_has_read_all_has_the_last_values(self) -> None:
        for reader in self.readers:
            copy = Reader(reader.channels, reader.cursor, values=dict(reader.values))
            copy.seen = list(reader.seen)
            for _ in range(1000):
                if not self.step(copy, self.brokers[-1], 2):
                    break
            assert copy.cursor == self.tip
            assert copy.values == self.current(copy)


@contextmanager
def small_windows() -> Iterator[None]:
    with patch("ssekit.brokers.contract.RECENT", 8):
        yield


@pytest.mark.parametrize("kind", URLS)
def test_readers_end_with_the_last_values_and_miss_nothing_unnoticed(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    machine = type("Log", (Log,), {"urls": new_logs(kind, request, tmp_path)})
    with small_windows():
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples({"memory": 100, "postgresql": 10}.get(kind, 25)),
                stateful_step_count=40,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
