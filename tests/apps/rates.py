"""A hub in memory whose five keys change 50 times a second each, while somebody asks for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

from werkzeug.middleware.dispatcher import DispatcherMiddleware

from ssekit import Hub
from ssekit.host import tcp

logging.basicConfig(level=logging.INFO)
tcp.STALL = 1.0  # A client that reads slowly must not be taken for one that has vanished.
hub = Hub(history=10)
KEYS = "abcde"


def listening(environ: dict[str, Any], start_response: Any) -> Any:
    return hub.stream("rates", heartbeat=1)(environ, start_response)


def passing(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    yield from listening(environ, start_response)


def changing(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Let the values change for some seconds; answers with the final ones."""
    (seconds,) = parse_qs(environ["QUERY_STRING"])["seconds"]
    number = 0
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        number += 1
        for key in KEYS:
            hub.publish("rates", f"{key} {number} {time.time():.3f} {'x' * 60}", key=key)
        time.sleep(0.02)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(number).encode()]


app = DispatcherMiddleware(listening, {"/passing": passing, "/change": changing})
