"""A loop for each client, in each way: what a WSGI generator does by hand, and ssekit's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.apps.loop_event import INTERVAL, data
from ssekit import Stream, every
from ssekit.script import Folder


def by_hand(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    """What one writes without a toolkit."""
    headers = [("Content-Type", "text/event-stream"), ("Cache-Control", "no-cache")]
    start_response("200 OK", headers)

    def events() -> Iterator[bytes]:
        number = 0
        yield b":\n"
        while True:
            time.sleep(INTERVAL)
            number += 1
            yield f"data: {data(number)}\n\n".encode()

    return events()


@Stream
def sleeping() -> Iterator[str]:
    """The same with a Stream."""
    number = 0
    while True:
        time.sleep(INTERVAL)
        number += 1
        yield data(number)


@Stream
def ticking() -> Iterator[str]:
    """With ssekit's timer."""
    for number in every(INTERVAL):
        yield data(number + 1)


@Stream.every(INTERVAL)
def tick(tick: Any) -> str:
    """Without a loop."""
    return data(tick.number + 1)


@Stream
def seldom() -> Iterator[str]:
    """A generator that mostly waits."""
    for number in every(60):
        yield data(number + 1)


@Stream.every(60)
def seldom_tick(tick: Any) -> str:
    """The same without a loop."""
    return data(tick.number + 1)


def ready(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


ROUTES: dict[str, Any] = {
    "/by-hand": by_hand,
    "/sleeping": sleeping,
    "/ticking": ticking,
    "/tick": tick,
    "/seldom": seldom,
    "/seldom-tick": seldom_tick,
    "/ready": ready,
    "/loop.py": Folder(Path(__file__).parent / "loop_scripts"),
}


def app(environ: dict[str, Any], start_response: Any) -> Any:
    return ROUTES[environ["PATH_INFO"]](environ, start_response)
