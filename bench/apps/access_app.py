"""The application of `bench.apps.hub_app`, and the same stream for those who have a grant."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from werkzeug import Request

from bench.apps import hub_app
from ssekit import Hub
from ssekit.access import Grant, Tickets

tickets = Tickets(os.environ["BENCH_SECRET"])
hub = Hub(os.environ["BENCH_HUB"]) if "BENCH_HUB" in os.environ else hub_app.hub
_granted = hub.endpoint(tickets, authorizing=1000)


def _until(request: Request) -> Grant:
    return Grant(["bench"], expires=float(request.args["at"]))


_expiring = hub.endpoint(_until, authorizing=1000)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Stream ``/granted`` to those who have a ticket, ``/expiring?at=TIME`` until then."""
    if environ["PATH_INFO"] == "/expiring":
        return _expiring(environ, start_response)
    if environ["PATH_INFO"] == "/granted":
        return _granted(environ, start_response)
    return hub_app.app(environ, start_response)
