"""A stream that says when each of its events left: ``Probe()``, a WSGI application for ``/probe``.

``ssekit doctor`` asks it, so that what a hop on the way holds back is measured against the server's
own times and not guessed.  Two requests are answered:

``?state=NAME``  a small JSON object: the server's time, its open streams, and whether the stream
                 called NAME is open in the process that answers
everything else  a stream of ``?count=`` events, ``?interval=`` seconds apart, each with the time it
                 left and the number N as its id; it resumes after ``Last-Event-ID``.  Then, with
                 ``?stay=1``, it stays open and sends heartbeats only.

All numbers are bounded, so that a stranger can ask for no more than for any other stream.  It needs
the standard library alone and can be a CGI script.
"""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from ssekit.stream import Stream, admission
from ssekit.stream.response import last_event_id, plain_answer
from ssekit.stream.timer import every
from ssekit.wire import Event

__all__ = ["Probe"]

MOST_EVENTS = 100
LONGEST_INTERVAL = 1.0
LONGEST_STAY = 60.0
"""Seconds that a stream stays open after its last event."""

_NAME = re.compile(r"[A-Za-z0-9]{1,32}")


class Asked(NamedTuple):
    """What a request asked for, within the bounds."""

    name: str
    events: int
    interval: float
    heartbeat: float
    stay: bool


class Probe:
    """The WSGI application; ``stream_options`` are those of `Stream`, such as ``origins``.

    Raises what `Stream` raises for them.
    """

    def __init__(self, **stream_options: Any) -> None:
        self._options = {"retry": 1000, **stream_options}
        self._open: Counter[str] = Counter()
        self._process = (0, "")

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer a request (PEP 3333)."""
        try:
            query = dict(parse_qsl(environ.get("QUERY_STRING", ""), max_num_fields=16))
        except ValueError as error:
            return plain_answer("400 Bad Request", f"{error}.", []).give(environ, start_response)
        if "state" in query and environ.get("REQUEST_METHOD") == "GET":
            return self._state(query["state"], start_response)
        asked = Asked(
            name=query["name"] if _NAME.fullmatch(query.get("name", "")) else "",
            events=round(_bounded(query.get("count"), 10, 0, MOST_EVENTS)),
            interval=_bounded(query.get("interval"), 0.1, 0.01, LONGEST_INTERVAL),
            heartbeat=_bounded(query.get("heartbeat"), 15.0, 0.2, 15.0),
            stay=query.get("stay") == "1",
        )
        source = partial(self._events, asked, last_event_id(environ))
        stream = Stream(source, **{"heartbeat": asked.heartbeat, **self._options})
        return stream(environ, start_response)

    def _state(self, name: str, start_response: Callable[..., Any]) -> Iterable[bytes]:
        state = {
            "probe": 1,
            "time": time.time(),
            "process": self._id(),
            "open": self._open[name] > 0,
            "streams": admission.open_streams(),
        }
        headers = [("Content-Type", "application/json"), ("Cache-Control", "no-store")]
        start_response("200 OK", headers)
        return [json.dumps(state).encode()]

    def _events(self, asked: Asked, after: str | None) -> Iterator[Event | None]:
        if asked.name:
            self._open[asked.name] += 1
        try:
            seen = after if after and after.isascii() and after.isdigit() else "0"
            first = int(seen) + 1 if len(seen) < 16 else asked.events + 1
            numbers = range(first, asked.events + 1)
            for number, _ in zip(numbers, every(asked.interval), strict=False):
                data = {"sent": time.time(), "process": self._id()}
                yield Event(data, event="probe", id=str(number))
            if asked.stay:
                for tick in every(LONGEST_STAY):
                    if tick:
                        break
                    yield None
        finally:
            if asked.name:
                self._open[asked.name] -= 1
                self._open += Counter()  # what has come to zero is forgotten

    def _id(self) -> str:
        """A name for this process that tells nothing about it."""
        if self._process[0] != os.getpid():
            self._process = (os.getpid(), secrets.token_hex(4))
        return self._process[1]


def _bounded(text: str | None, default: float, least: float, most: float) -> float:
    try:
        number = float(text) if text else default
    except ValueError:
        return default
    return min(max(number, least), most) if math.isfinite(number) else default
