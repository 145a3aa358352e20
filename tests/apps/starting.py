"""A hub that starts work for a page, in whichever worker the page is loaded."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

from werkzeug.middleware.dispatcher import DispatcherMiddleware

from ssekit import Hub

hub = Hub(os.environ["HUB"])


def words(count: int) -> Iterator[str]:
    yield f"by {os.getpid()}"
    for n in range(count):
        time.sleep(0.05)
        yield str(n)


def starting(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    query = parse_qs(environ["QUERY_STRING"])
    begun = hub.start(query["channel"][0], words, int(query.get("count", ["1000"])[0]))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{begun} {os.getpid()}".encode()]


def listening(environ: dict[str, Any], start_response: Any) -> Any:
    query = parse_qs(environ["QUERY_STRING"])
    return hub.stream(*query["channel"], replay="all")(environ, start_response)


app = DispatcherMiddleware(listening, {"/start": starting})

if os.environ.get("START_AT_ONCE"):
    hub.start("early", words, 1000)
