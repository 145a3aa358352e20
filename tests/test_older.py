"""Older entries, which those who need them read together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ssekit.brokers import Broker, connect, parse_id
from ssekit.errors import BrokerUnavailable
from ssekit.hub import older
from ssekit.hub.pieces import View
from tests.waiting import until

READERS = 5


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with closing(connect(f"sqlite:///{tmp_path}/log.db")) as broker:
        yield broker


def test_what_was_read_for_a_reader_while_it_waited_is_not_read_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = connect(f"sqlite:///{tmp_path}/log.db")
    epoch, position = parse_id(broker.append("news", b"data: 1\n").id)
    broker.append("news", b"data: 2\n")
    broker.append("sports", b"data: 3\n")
    entries = older.OlderEntries(broker)
    news, sports = View(frozenset({"news"})), View(frozenset({"sports"}))
    read: list[frozenset[str]] = []
    read_of_broker = broker.read

    def reading(channels: frozenset[str], *rest: Any) -> Any:
        read.append(channels)
        return read_of_broker(channels, *rest)

    def others_read(_: float) -> None:
        entries.pieces([(news, epoch, position)])

    monkeypatch.setattr(broker, "read", reading)
    monkeypatch.setattr(older.time, "sleep", others_read)
    entries.piece(sports, epoch, position)  # From now on readers wait for others to join them.
    assert entries.piece(news, epoch, position) is not None
    entries.piece(sports, epoch, position - 1)
    broker.close()

    assert read == [sports.channels, news.channels, sports.channels]


def read_at_once(
    entries: older.OlderEntries,
    cursor: str,
    monkeypatch: pytest.MonkeyPatch,
    first: Callable[[], None],
) -> list[object]:
    """Have each of some channels read; ``first`` is called in the one that reads for all."""
    found: list[object] = []
    epoch, position = parse_id(cursor)

    def read(channel: str) -> None:
        try:
            piece = entries.piece(View(frozenset({channel})), epoch, position)
            found.append(piece and piece.entries[0].channel)
        except BaseException as error:
            found.append(error)

    def wait(_: float) -> None:
        until(lambda: entries._next and len(entries._next.positions) == READERS)
        monkeypatch.undo()
        first()

    entries.piece(View(frozenset({"before"})), epoch, position)  # From now on readers gather.
    monkeypatch.setattr(older, "STORM", 60.0)
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=wait)
    monkeypatch.setattr(older, "time", clock)
    threads = [threading.Thread(target=read, args=[str(n)]) for n in range(READERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    return found


def filled(broker: Broker) -> str:
    """Append an entry to a channel of each reader; returns the cursor before them."""
    before = broker.append("before", b"data: 0\n").id
    for n in range(READERS):
        broker.append(str(n), b"data: 1\n")
    return before


def test_in_a_storm_one_reads_for_all_and_each_gets_its_own(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = filled(broker)
    reads: list[object] = []
    read_of_broker = broker.read

    def read(*arguments: Any) -> Any:
        reads.append(arguments)
        return read_of_broker(*arguments)

    def count() -> None:
        monkeypatch.setattr(broker, "read", read)

    found = read_at_once(older.OlderEntries(broker), before, monkeypatch, count)
    assert sorted(map(str, found)) == [str(n) for n in range(READERS)]
    assert len(reads) == 1


def test_in_a_storm_an_outage_is_raised_for_all_who_wait(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise BrokerUnavailable("away")

    found = read_at_once(
        older.OlderEntries(broker),
        filled(broker),
        monkeypatch,
        lambda: monkeypatch.setattr(broker, "read", fail),
    )
    assert list(map(type, found)) == [BrokerUnavailable] * READERS


def test_when_the_one_that_reads_is_ended_the_others_read_on(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ended(BaseException):
        """As thrown into a greenlet."""

    def end() -> None:
        raise Ended

    found = read_at_once(older.OlderEntries(broker), filled(broker), monkeypatch, end)
    assert sorted(type(one).__name__ for one in found) == ["Ended"] + ["str"] * (READERS - 1)
