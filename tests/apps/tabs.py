"""A site with a hub's stream, the module that reads it, and pages with a strict policy.

``HUB`` is the hub's address.  A cookie ``user`` signs in, where ``/private`` asks for one.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from werkzeug import Request, Response
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from ssekit import Hub
from ssekit.browser import files
from ssekit.stream.admission import open_streams

PAGES = Path(__file__).with_name("tabs")
POLICY = "default-src 'none'; script-src 'self'; connect-src 'self'; worker-src 'self'; frame-src *"
TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8"}

hub = Hub(os.environ["HUB"], history=int(os.environ.get("HISTORY", "1000")))
heartbeat = float(os.environ.get("HEARTBEAT", "1"))


def events(environ: dict[str, Any], start_response: Any) -> Any:
    channels = parse_qs(environ["QUERY_STRING"]).get("channel", ["news"])
    stream = hub.stream(*channels, heartbeat=heartbeat, retry=100, origins="*")
    return stream(environ, start_response)


def private(environ: dict[str, Any], start_response: Any) -> Any:
    request = Request(environ)
    known = request.cookies.get("user") or request.args.get("ticket")
    answer = events if known else Response("Who are you?", 401)
    return answer(environ, start_response)


def count(environ: dict[str, Any], start_response: Any) -> Any:
    return Response(str(open_streams()))(environ, start_response)


def page(environ: dict[str, Any], start_response: Any) -> Any:
    path = PAGES / (environ["PATH_INFO"].strip("/") or "index.html")
    if path.parent != PAGES or path.suffix not in TYPES or not path.exists():
        return Response(status=404)(environ, start_response)
    # Without the policy only where a test's own script has to run in a sandbox.
    headers = {"Content-Security-Policy": POLICY, "Access-Control-Allow-Origin": "*"}
    answer = Response(path.read_bytes(), content_type=TYPES[path.suffix], headers=headers)
    return answer(environ, start_response)


app = DispatcherMiddleware(
    page, {"/events": events, "/private": private, "/open": count, "/below/a/prefix": files}
)
