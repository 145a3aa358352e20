"""A hub whose viewers all come back at once: to one channel, or each to a channel of its own."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Iterable
from statistics import median
from typing import Any
from urllib.parse import parse_qs

from bench.apps.turns import Turns
from bench.herd import fill
from bench.storms import event
from ssekit import Hub

hub = Hub(os.environ["HERD_HUB"])
_shared = hub.stream("herd", heartbeat=60)
_here = hub.stream("here", heartbeat=60)
_numbers = itertools.count()
_sequence = itertools.count(1)
_turns = Turns()


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Stream ``/events``, and ``/own/N`` with the next of N channels; else give a plain answer."""
    path = environ["PATH_INFO"]
    if path == "/events":
        return _shared(environ, start_response)
    if path.startswith("/own/"):
        number = next(_numbers) % int(path[5:])
        return hub.stream(f"own {number}", heartbeat=60)(environ, start_response)
    if path == "/here":
        return _here(environ, start_response)
    answer = b"ok\n"
    if path == "/fill":  # a hub in memory has only what its own process publishes
        query = parse_qs(environ["QUERY_STRING"])
        answer = fill(hub, int(query["events"][0]), int(query["own"][0])).encode()
    elif path == "/publishing":  # the median time of so many publishes, in µs
        answer = str(_publishing(int(parse_qs(environ["QUERY_STRING"])["count"][0]))).encode()
    elif path == "/live":
        answer = str(hub.publish("here", event(next(_sequence))).id).encode()
    elif path == "/turns/start":
        _turns.start()
    elif path == "/turns/stop":
        answer = json.dumps(_turns.stop()).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [answer]


def _publishing(count: int) -> float:
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        hub.publish("herd", "x" * 200)
        taken.append(time.perf_counter() - began)
        time.sleep(0.001)  # It is delivered meanwhile.
    return median(taken) * 1e6
