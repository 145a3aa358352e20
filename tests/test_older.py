"""Older entries, which those who need them read together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ssekit.brokers import connect, parse_id
from ssekit.hub import older
from ssekit.hub.recent import View


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
