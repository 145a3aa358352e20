"""The process's one reading of a log, where the log cannot be read yet."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from ssekit import Hub
from ssekit.subscription import Subscription
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
