"""A site whose tabs share a stream, a publisher, and what must be true of what a tab has seen."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

from ssekit import Hub
from tests.servers import Server, gunicorn
from tests.waiting import until

APP = "tests.apps.tabs:app"


@contextmanager
def site(folder: Path, *options: str, **env: str) -> Iterator[Server]:
    with gunicorn(APP, *options, env={"HUB": address(folder), **env}) as server:
        yield server


def address(folder: Path) -> str:
    return f"sqlite:///{folder}/tabs.db"


class Publisher:
    """Publishes 1, 2, 3, ... to a channel at a rate, from another process than the server's."""

    def __init__(self, hub: Hub, rate: float, channel: str = "news") -> None:
        self._hub = hub
        self._rate = rate
        self._channel = channel
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.last = 0

    def _run(self) -> None:
        began = time.monotonic()
        for number in itertools.count(1):
            if self._stopped.wait(max(0, began + number / self._rate - time.monotonic())):
                return
            self._hub.publish(self._channel, number)
            self.last = number

    def __enter__(self) -> Publisher:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> int:
        """Publish no more; the last number."""
        self._stopped.set()
        self._thread.join()
        return self.last


def page_address(server: Server, url: str = "events", **options: Any) -> str:
    query = {"url": url, **({"options": json.dumps(options)} if options else {})}
    return f"{server.url}/?{urlencode(query)}"


def check(seen: Sequence[int], last: int | None = None) -> None:
    """Assert that a tab has lost, repeated and reordered nothing, and has come to the end."""
    wrong = [pair for pair in itertools.pairwise(seen) if pair[1] != pair[0] + 1]
    assert not wrong, f"{len(wrong)} of {len(seen)} events do not follow: {wrong[:5]}"
    assert last is None or (seen and seen[-1] == last), f"the last is {seen[-1:]}, not {last}"


def connections(server: Server) -> int:
    with urlopen(f"{server.url}/open", timeout=10) as answer:
        return int(answer.read())


def until_open(server: Server, count: int, seconds: float = 10) -> None:
    until(lambda: connections(server) == count, seconds, f"{count} connections")
