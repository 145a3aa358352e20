"""Streams for those who have a ticket (``/``) or a token (``/token``); the log has all that we log.

One stream at a time; ``/broken`` fails to authorize, and says what it was asked with.
"""

from __future__ import annotations

import logging
from typing import Any

from werkzeug import Request
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from ssekit import Hub
from ssekit.access import JWT, Tickets

SECRET = "a secret of these tests alone, of 32 bytes"

logging.basicConfig(level=logging.DEBUG)
hub = Hub(max_streams=1)
tickets = Tickets(SECRET)


def broken(request: Request) -> Any:
    raise RuntimeError("the database is at its limit")


app = DispatcherMiddleware(
    hub.endpoint(tickets),
    {
        "/token": hub.endpoint(JWT(key=SECRET, algorithms=["HS256"])),
        "/broken": hub.endpoint(broken),
    },
)
