"""The functions of gunicorn's workers by name, with the objects that a test gives them."""

from __future__ import annotations

from typing import Any

from ssekit.host import wsgi_servers
from ssekit.host.connection import Connection

__name__ = "gunicorn.workers.base_async"


def handle_request(self: Any, resp: Any, respiter: Any) -> Connection | None:
    return wsgi_servers.find(respiter)


def renamed(self: Any, response: Any, respiter: Any) -> Connection | None:
    return wsgi_servers.find(respiter)


renamed.__code__ = renamed.__code__.replace(co_name="handle_request")
