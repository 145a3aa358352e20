"""What of a request is kept for the life of a stream that has left its server.

The server's own objects go: they hold its buffers and its end of the connection.  Most clients send
the same headers, so those are kept once for all of them, and of each client only what is its own.
"""

from __future__ import annotations

import io
import sys
from typing import Any

Environ = dict[str, Any]

Kept = tuple[Any, ...]
"""The environ that is shared, then name and value of what is the client's own."""

_OF_THE_SERVER = frozenset(
    [
        "gunicorn.sock",
        "gunicorn.socket",
        "werkzeug.request",
        "wsgi.early_hints",
        "wsgi.errors",
        "wsgi.file_wrapper",
        "wsgi.input",
    ]
)
_OWN = frozenset(
    [
        "HTTP_AUTHORIZATION",
        "HTTP_COOKIE",
        "HTTP_FORWARDED",
        "HTTP_LAST_EVENT_ID",
        "HTTP_TRACEPARENT",
        "HTTP_X_FORWARDED_FOR",
        "HTTP_X_REAL_IP",
        "HTTP_X_REQUEST_ID",
        "REMOTE_ADDR",
        "REMOTE_PORT",
    ]
)
"""What differs from client to client."""
_QUERY = frozenset(["QUERY_STRING", "RAW_URI", "REQUEST_URI"])
_MOST = 1000
"""Environs that are shared, and paths: clients choose them."""

_environs: dict[tuple[tuple[str, Any], ...], Environ] = {}
_paths: dict[str, str] = {}


def kept(environ: Environ) -> Kept:
    """Return what is kept of an environ (PEP 3333), for `restored`."""
    names = _OWN | _QUERY if environ.get("QUERY_STRING") else _OWN
    shared: Environ = {}
    own: list[Any] = []
    for name, value in environ.items():
        if name in names or not (isinstance(value, str | int) or name == "wsgi.version"):
            if name not in _OF_THE_SERVER:
                own += name, value
        else:
            shared[name] = value
    if len(_environs) >= _MOST:
        _environs.clear()
    return (_environs.setdefault(tuple(shared.items()), shared), *own)


def restored(environ: Environ | Kept) -> Environ:
    """Return an environ: as it is, or what was kept of it.

    That has an empty body, and somewhere for errors (PEP 3333).
    """
    if isinstance(environ, dict):
        return environ
    shared, *own = environ
    return {
        **shared,
        **dict(zip(own[::2], own[1::2], strict=True)),
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
    }


def kept_path(path: str) -> str:
    """Return the path, or an equal one that another client has.

    ``sys.intern`` would keep it forever in Python 3.12.
    """
    if len(_paths) >= _MOST:
        _paths.clear()
    return _paths.setdefault(path, path)
