"""An endpoint for many users: the user's name is in a header, and a module of tests decides."""

from __future__ import annotations

import os
import time
from typing import Any
from urllib.parse import parse_qs

from werkzeug import Request
from werkzeug.exceptions import Gone
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from ssekit import Hub
from ssekit.access import Grant
from tests.apps.sources import upper

hub = Hub(os.environ.get("HUB", "memory:"), on_outage=os.environ.get("ON_OUTAGE", "keep"))  # type: ignore[arg-type]


def authorize(request: Request) -> Grant | None:
    user = request.headers.get("X-User")
    if user is None:
        return None
    if user == "broken":
        raise RuntimeError("the database is at its limit")
    if user == "gone":
        raise Gone("this account was deleted")
    return Grant(
        ["news", f"user.{user}.*"],
        subject=user,
        session=request.headers.get("X-Session"),
        expires=time.time() + float(request.headers.get("X-Seconds", "3600")),
        issued=float(request.headers.get("X-Issued", time.time())),
    )


endpoint = hub.endpoint(authorize, heartbeat=0.2)


def act(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """``?do=disconnect&subject=ann``, ``?do=revoke&...``, ``?do=publish&channel=...&data=...``."""
    query = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
    getattr(hub, query.pop("do"))(**query)
    start_response("200 OK", [])
    return [b""]


def inside(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """How many streams have a grant here, and how many the fan-out serves."""
    taken = hub._opened.follower().distributor
    counts = len(hub._opened.access().streams), 0 if taken is None else len(taken)  # type: ignore[arg-type]
    start_response("200 OK", [])
    return [b"%d %d" % counts]


app = DispatcherMiddleware(
    endpoint,
    {"/act": act, "/inside": inside, "/iterated": upper(endpoint)},
)
