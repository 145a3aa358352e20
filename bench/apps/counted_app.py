"""`hub_app` with metrics as in production, or, with BENCH_COUNTS=off, with nothing counted.

Nobody can turn counting off but this application: it is there to be subtracted.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import gevent

from ssekit.host.counting import Counts

if os.environ.get("BENCH_COUNTS") == "off":

    def nothing(*_: object) -> None:
        """Count nothing."""

    for name in ("add", "set", "follows", "ended", "delivered", "in_channel", "sent"):
        setattr(Counts, name, nothing)
    setattr(Counts, "publishing", lambda *_: nullcontext())  # noqa: B010

from bench.apps.hub_app import app, hub

__all__ = ["app"]


def scrape(metrics: Any) -> None:
    """Read the metrics every second, as an eager Prometheus would."""
    environ = {"REQUEST_METHOD": "GET"}
    while True:
        b"".join(metrics(environ, nothing_started))
        gevent.sleep(1)


def nothing_started(*_: object) -> None:
    """Take the head of the answer."""


if os.environ.get("BENCH_COUNTS") != "off":
    from ssekit.metrics import Metrics

    # A hub in memory shares nothing: here its numbers are in a file, as those of others are.
    hub.counts.path = Path(tempfile.mkdtemp(prefix="ssekit-bench-"), "bench-counters")
    gevent.spawn(scrape, Metrics(hub, channels=["bench"]))
