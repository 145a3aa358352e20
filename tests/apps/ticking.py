"""Functions that tick, and generators with a request context, with counts of what was called."""

from __future__ import annotations

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from flask import Flask, request, stream_with_context
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from ssekit import Event, Stream, every
from ssekit.stream import Stop
from ssekit.stream.admission import open_streams
from tests.apps.sources import upper

logging.basicConfig(level=logging.INFO)
BEAT = 0.1
SOON = 0.05
called: Counter[str] = Counter()
ended: list[float] = []
colour: ContextVar[str] = ContextVar("colour", default="none")


@Stream.every(SOON)
def counting(tick: Any) -> Event:
    """Its own state for each client."""
    tick.total = getattr(tick, "total", 0) + tick.number
    return Event({"number": tick.number, "total": tick.total}, id=str(tick.number))


@Stream.every(SOON)
def asking(tick: Any) -> dict[str, Any]:
    """What it knows of its client, also at later ticks."""
    if tick.number < 2:
        return {}
    return {
        "path": tick.request.path,
        "query": tick.request.args["a"],
        "header": tick.request.headers["X-Mine"],
        "last": tick.last_event_id,
    }


@Stream.every(SOON, heartbeat=BEAT)
def nothing(tick: Any) -> None:
    called["nothing"] += 1


@Stream.every(SOON, retry=5000)
def stopping(tick: Any) -> int:
    if tick.number >= 3:
        raise Stop
    return int(tick.number)


@Stream.every(SOON)
def failing(tick: Any) -> int:
    return 1 // (2 - min(int(tick.number), 2))


@Stream.every(SOON)
def invalid(tick: Any) -> Event:
    return Event("x", id="1\nretry: 0")


@Stream.every(SOON, heartbeat=BEAT)
def waiting(tick: Any) -> int:
    try:
        time.sleep(3600)
    finally:
        ended.append(time.monotonic())
    return 1


@Stream.every(SOON, heartbeat=BEAT)
def stubborn(tick: Any) -> int:
    try:
        time.sleep(3600)
    except BaseException:
        time.sleep(3600)
    return 1


@Stream.every(0.001)
def large(tick: Any) -> Event:
    called["large"] += 1
    return Event("x" * 65536, id=str(called["large"]))


@Stream.every(3600)
def rare(tick: Any) -> str:
    return "rare"


@Stream
def numbers() -> Iterator[Event]:
    """Large events without a pause: the client has to be waited for."""
    try:
        for number in range(80):
            yield Event(f"{number}.".ljust(100_000, "y"))
    finally:
        ended.append(time.monotonic())


@Stream
def coloured() -> Iterator[str]:
    colour.set("red")
    for _ in every(SOON):
        yield colour.get()


def reading(request: Any) -> Iterator[int]:
    """Reads the body only once the stream is open."""
    yield 0
    yield len(request.get_data())


flask = Flask(__name__)


@flask.get("/")
def view() -> Any:
    @stream_with_context
    def events() -> Iterator[str]:
        try:
            for _ in every(SOON):
                yield request.args["a"]
        finally:
            ended.append(time.monotonic())
            called[f"left with {request.args['a']}"] += 1

    return Stream(events)


@flask.get("/three")
def three() -> Any:
    @stream_with_context
    def events() -> Iterator[str]:
        for _ in range(3):
            yield request.args["a"]

    return Stream(events)


def state(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "application/json")])
    found = {
        "called": called,
        "ended": ended[-100:],
        "open": open_streams(),
        "descriptors": len(os.listdir("/proc/self/fd")),
    }
    return [json.dumps(found).encode()]


def slow(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    called["slow"] += 1
    time.sleep(0.5)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"at last"]


STREAMS: dict[str, Any] = {
    "/counting": counting,
    "/asking": asking,
    "/nothing": nothing,
    "/stopping": stopping,
    "/failing": failing,
    "/invalid": invalid,
    "/waiting": waiting,
    "/stubborn": stubborn,
    "/large": large,
    "/rare": rare,
    "/numbers": numbers,
    "/coloured": coloured,
    "/flask": flask,
    "/reading": Stream(reading, methods=("POST",)),
    "/upper": upper(counting),
    "/slow": slow,
    "/state": state,
}
app = DispatcherMiddleware(state, STREAMS)
