"""What tests of brokers share: bodies of events, and ways to read a whole log."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterable

from ssekit.brokers import Broker, Entry
from tests.servers import ROOT

Open = Callable[..., Broker]
"""Opens a broker on the test's URL, as another process would; takes the fields of `Retention`."""


def body(data: object) -> bytes:
    """The body of an event with this data, as the hub hands it to a broker."""
    return f"data: {data}\n".encode()


REMOVED = b"event: stream-remove\ndata: {}\n"
END = b"event: stream-end\ndata: {}\n"


def data(entries: Iterable[Entry]) -> list[str]:
    """The data of entries whose bodies were made by `body`."""
    return [entry.body.decode().removeprefix("data: ").removesuffix("\n") for entry in entries]


def everything(broker: Broker, after: str, *channels: str, limit: int = 100) -> list[Entry]:
    found: list[Entry] = []
    while True:
        entries, cursor = broker.read(channels, after, limit)
        found += entries
        if cursor == after:
            return found
        after = cursor


def followed(broker: Broker, after: str, count: int, seconds: float = 10) -> list[Entry]:
    found: list[Entry] = []
    deadline = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < deadline:
        entries, after = broker.follow(after, 0.5)
        found += entries
    return found


def state(broker: Broker, channel: str) -> dict[str, str]:
    """The data of each key's newest entry."""
    values = broker.opening([channel], 0).state
    return dict(zip((value.key or "" for value in values), data(values), strict=True))


def run(module: str, *arguments: str, seconds: float = 60) -> str:
    """Run a module in another process; its output."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", module, *arguments],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
