"""The streams of `bench.sessions`, and its sessions where the log is in this process's memory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs

from bench.apps.session import session
from ssekit import Hub

hub = Hub(os.environ["HUB"], history=100_000)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
    """Stream the channels, or with a ``kind`` run a session and say what it says."""
    query = parse_qs(environ["QUERY_STRING"])
    if "kind" not in query:
        return hub.stream(*query["channel"], heartbeat=1.0)(environ, start_response)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return _run(*(query[name][0] for name in ("channel", "kind", "count", "pause")))


def _run(channel: str, kind: str, count: str, pause: str) -> Iterator[bytes]:
    with suppress(RuntimeError):  # What fails is to be seen in its channel.
        for said in session(hub, channel, kind, int(count), float(pause)):
            yield json.dumps(said).encode() + b"\n"
