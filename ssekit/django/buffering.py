"""Whether a middleware lets a stream through: each is tried with one, by itself.

No list of names would do: what matters is what a middleware does with the blocks of a response.  It
gets the request of a stranger, and every query to a database is refused.  If it fails because of
that, nothing is known of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any

from django.conf import settings
from django.db import connections
from django.http import HttpRequest
from django.test import RequestFactory
from django.utils.module_loading import import_string

from ssekit.django.response import StreamResponse

BLOCKS = 100
"""Blocks of the stream that it is tried with."""
AHEAD = 5
"""Blocks that a middleware may ask for before it passes on the first."""


def holds_back(name: str) -> bool:
    """Return whether a middleware, by its dotted name, gathers a stream instead of passing it on.

    False for one that cannot be tried.
    """
    try:
        with ExitStack() as stack:
            for connection in connections.all():
                stack.enter_context(connection.execute_wrapper(_refuse))
            return _gathers(import_string(name))
    except Exception:
        return False  # For want of a real request.  A stream that fails is seen by everybody.


def _gathers(middleware: Any) -> bool:
    taken = 0

    def blocks() -> Iterator[bytes]:
        nonlocal taken
        for taken in range(1, BLOCKS + 1):
            yield b"data: %d\n\n" % taken

    def stream(_environ: Any, start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/event-stream; charset=utf-8")])
        return blocks()

    response = middleware(lambda request: StreamResponse(stream, request))(_request())
    if getattr(response, "streaming", False):
        next(iter(response), b"")
    return taken > AHEAD


def _request() -> HttpRequest:
    hosts = [host for host in settings.ALLOWED_HOSTS if "*" not in host]
    return RequestFactory().get(
        "/",
        secure=True,  # so that nothing is redirected
        HTTP_HOST=hosts[0].lstrip(".") if hosts else "localhost",
        HTTP_ACCEPT="text/event-stream",
        HTTP_ACCEPT_ENCODING="gzip, deflate, br, zstd",
    )


def _refuse(*_: Any) -> Any:
    raise RuntimeError("a check makes no query")
