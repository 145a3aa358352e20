"""Streams under a gunicorn whose local variable for the response has another name."""

from __future__ import annotations

from ssekit.host import wsgi_servers
from tests.apps import sources


def changed(_self: object, local: object) -> None:
    raise KeyError("resp")


wsgi_servers.Gunicorn.__init__ = changed  # type: ignore[method-assign,assignment]
app = sources.app
