"""The process's one reading of a log, where the log cannot be read yet."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from ssekit import BrokerUnavailable, Event, Hub
from ssekit.brokers.memory import MemoryBroker
from ssekit.hub.follower import Tail
from ssekit.hub.subscription import Subscription
from tests.waiting import until


def test_a_viewer_that_comes_before_the_log_was_ever_reached_waits_without_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = 0
    read = Subscription._read

    def counted(self: Subscription) -> bool:
        nonlocal turns
        turns += 1
        return read(self)

    monkeypatch.setattr(Subscription, "_read", counted)
    folder = tmp_path / "later"
    hub = Hub(f"sqlite:///{folder}/hub.db")
    subscription = hub.subscribe("news")
    seen: list[str | None] = []
    viewer = threading.Thread(target=lambda: seen.append(next(subscription).event))
    viewer.start()
    try:
        until(lambda: turns > 0)
        time.sleep(0.2)  # as long as a viewer that does not wait takes for thousands of turns
        assert turns < 10, "the viewer asks again and again"
        folder.mkdir()
        until(lambda: seen == ["stream-open"], 20)
    finally:
        hub.close()
        viewer.join(10)


def test_an_outage_is_logged_once_and_tried_at_growing_jittered_intervals(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broker = MemoryBroker(10)
    waits: list[float] = []

    def away() -> str:
        raise BrokerUnavailable("nobody answers")

    def wait(seconds: float) -> None:
        waits.append(seconds)
        tail.closed = len(waits) == 30
        if len(waits) == 15:  # it comes back for a moment
            monkeypatch.setattr(broker, "tip", MemoryBroker.tip.__get__(broker))
            monkeypatch.setattr(broker, "follow", follow)

    def follow(after: str, timeout: float) -> object:
        monkeypatch.setattr(broker, "follow", lambda *_: away())
        broker.append("news", Event("x"))
        return MemoryBroker.follow(broker, after, timeout)

    monkeypatch.setattr(broker, "tip", away)
    tail = Tail(broker, 10)
    monkeypatch.setattr(tail._stop, "wait", wait)
    with caplog.at_level("INFO", "ssekit.hub"):
        tail._run()
    outage = "the hub's broker is away, its streams stay open: nobody answers"
    assert caplog.messages == [outage, "the hub's broker is back", outage]
    bounds = [min(5.0, 0.1 * 2 ** (n + 1)) for n in range(15)] * 2
    assert all(most / 2 <= waited <= most for waited, most in zip(waits, bounds, strict=True))
    assert len(set(waits)) == len(waits)
    broker.close()
