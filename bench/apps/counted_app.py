"""`hub_app` with metrics as in production, whose counting ``/counting/off`` and ``on`` switch.

Nobody else can switch it off: what nothing counted costs is there to be subtracted.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import gevent

from bench.apps.hub_app import app as hub_app
from bench.apps.hub_app import hub
from ssekit.host.counting import Counts
from ssekit.metrics import Metrics

ON = {
    name: getattr(Counts, name)
    for name in (
        "add",
        "set",
        "follows",
        "opened",
        "ended",
        "delivered",
        "in_channel",
        "published",
        "published_each",
        "sent",
        "not_published",
    )
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
    for name, method in (ON if on else OFF).items():
        setattr(Counts, name, method)


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
    if environ["PATH_INFO"].startswith("/counting/"):
        switch(environ["PATH_INFO"].endswith("/on"))
    return hub_app(environ, start_response)


# A hub in memory shares nothing: here its numbers are in a file, as those of others are.
hub.counts.path = Path(tempfile.mkdtemp(prefix="ssekit-bench-"), "bench-counters")
gevent.spawn(scrape, Metrics(hub, channels=["bench"]))
