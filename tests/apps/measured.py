"""A hub with its metrics and its health check: what a server under Prometheus has."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from ssekit import Hub
from ssekit.metrics import Health, Metrics

hub = Hub(os.environ["SSEKIT_URL"])
applications = {
    "/events": hub.stream("news"),
    "/metrics": Metrics(hub, os.environ.get("TOKEN"), channels=["news"]),
    "/healthz": Health(hub),
}


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path in applications:
        return applications[path](environ, start_response)
    hub.publish(environ["QUERY_STRING"] or "news", "event")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
