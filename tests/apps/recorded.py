"""A stream to be recorded and cut, and one that goes through all stages of a stream."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from werkzeug import Request

from ssekit import Event, Stream

BEAT = 0.1
EPOCH = "1760000000000"


def events() -> Iterator[Event]:
    """Three events with heartbeats between them, and then the closing_retry."""
    yield Event("one", id=f"{EPOCH}-1")
    time.sleep(BEAT * 1.5)
    yield Event("two\nlines", event="tick", id=f"{EPOCH}-2")
    time.sleep(BEAT * 1.5)
    yield Event({"three": "\u4e09"}, id=f"{EPOCH}-3")
    raise RuntimeError("so that the stream says closing_retry")


def stages(request: Request) -> Iterator[Event]:
    """Opening, heartbeats, an event, heartbeats, closing_retry; and after the id the last event."""
    time.sleep(BEAT * 3.5)
    if request.headers.get("Last-Event-ID") == f"{EPOCH}-1":
        yield Event("end", id=f"{EPOCH}-2")
        time.sleep(60)
    yield Event("one", id=f"{EPOCH}-1")
    time.sleep(BEAT * 3.5)
    raise RuntimeError("so that the stream says closing_retry")


ROUTES = {
    "/wire": Stream(events, heartbeat=BEAT, retry=50),
    "/stages": Stream(stages, heartbeat=BEAT, retry=50),
}


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    stream = ROUTES.get(environ["PATH_INFO"])
    if stream is not None:
        return stream(environ, start_response)
    start_response("200 OK", [("Content-Type", "text/html")])
    return [b"<!doctype html><title>A page of the same origin</title>"]
