"""`hub_app` with metrics as in production, whose counting ``/counting/off`` and ``on`` switch.

Nobody else can switch it off: what nothing counted costs is there to be subtracted.
``/counting/timed`` has it timed where it is done, and ``/counting/took`` says how many seconds it
took since.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import gevent

from bench.apps.hub_app import app as hub_app
from bench.apps.hub_app import hub
from ssekit.host.counting import Counts
from ssekit.hub.opened import Opened
from ssekit.hub.tally import Tally
from ssekit.metrics import Metrics

OFTEN = ((Tally, "took"), (Tally, "settle"), (Opened, "count_published"))
"""All that is called to count while events are published and delivered."""
COUNTS = ("add", "set", "follows", "opened", "ended", "delivered", "published", "not_published")
ON = {(owner, name): getattr(owner, name) for owner, name in OFTEN} | {
    (Counts, name): getattr(Counts, name) for name in COUNTS
}


def nothing(*_: object) -> None:
    """Count nothing; take the head of the answer to a scrape."""


OFF = dict.fromkeys(ON, nothing)
INTERVAL = 15
"""That of the configuration which comes with Prometheus."""
counting = True


def switch(on: bool) -> None:
    """Count, or do not."""
    global counting  # noqa: PLW0603
    counting = on
    for (owner, name), method in (ON if on else OFF).items():
        setattr(owner, name, method)


took: dict[str, list[float]] = {}


def timed(owner: type, name: str) -> None:
    """Note how long each call of a method takes."""
    method: Callable[..., None] = getattr(owner, name)
    seconds = took[name] = []

    def call(*arguments: Any) -> None:
        began = perf_counter()
        method(*arguments)
        seconds.append(perf_counter() - began)

    setattr(owner, name, call)


def taken() -> float:
    """Return the seconds that counting took; of each kind of call the median stands for all.

    Others run in the middle of some.
    """
    total = sum(median(seconds) * len(seconds) for seconds in took.values() if seconds)
    for seconds in took.values():
        seconds.clear()
    return total


def scrape(metrics: Metrics) -> None:
    """Read the metrics after each `INTERVAL` seconds in which there was counting."""
    environ = {"REQUEST_METHOD": "GET"}
    counted = 0
    while True:
        gevent.sleep(1)
        counted += counting
        if counted == INTERVAL:
            counted = 0
            b"".join(metrics(environ, nothing))


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Do as `hub_app`, and switch counting on and off."""
    match environ["PATH_INFO"]:
        case "/counting/on" | "/counting/off" as path:
            switch(path.endswith("on"))
        case "/counting/timed":
            for owner, name in OFTEN:
                timed(owner, name)
        case "/counting/took":
            body = str(taken()).encode()
            start_response("200 OK", [("Content-Length", str(len(body)))])
            return [body]
    return hub_app(environ, start_response)


# A hub in memory shares nothing: here its numbers are in a file, as those of others are.
hub.counts.path = Path(tempfile.mkdtemp(prefix="ssekit-bench-"), "bench-counters")
gevent.spawn(scrape, Metrics(hub, channels=["bench"]))
