"""A WSGI middleware that answers only requests for the host names that a server is known by.

The demo application and ``ssekit serve`` are wrapped in it.  Without it a page of any site could
read every stream of a server on this machine: the site points its own name at 127.0.0.1 (DNS
rebinding), and the browser then takes our answers for that site's own.  What gives such a request
away is its ``Host`` header, which a page cannot choose.

The names of this machine itself are always known; every other name has to be given.  This module
looks at the header alone, knows no address, and returns the application's own iterable untouched.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

LOOPBACK = ("localhost", ".localhost", "127.0.0.1", "[::1]")
"""The names of the machine itself (RFC 6761, section 6.3), which no other site can have."""

# RFC 3986, section 3.2.2, without percent-encoding, which no browser sends.
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{0,5})?")
_NAME = re.compile(r"\.?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")

_ANSWER = (
    "This server does not answer to the host name {host}. If it is yours, name it in SSEKIT_HOSTS, "
    "with spaces between names (for `ssekit serve` also: --host {host}), and start the server "
    "again.\n"
)
_MALFORMED = "The Host header is missing or is not a host name.\n"


def hosts_of(setting: str) -> tuple[str, ...]:
    """Return the names in ``SSEKIT_HOSTS``, which has spaces or commas between them."""
    return tuple(setting.replace(",", " ").split())


class TrustedHosts:
    """A WSGI application that passes requests on if their ``Host`` is known.

    ``hosts`` are names without scheme and port, such as ``www.example.org``.  A leading dot admits
    all names below it as well (``.example.org``), and ``*`` admits every name: only for a server
    behind a proxy that checks them.  The names in `LOOPBACK` are always admitted.

    Another name is answered 421 (RFC 9110, section 15.5.20), and no valid name 400; an EventSource
    does not try again after either.  Raises ValueError for what is not a host name.
    """

    def __init__(
        self, app: Callable[[dict[str, Any], Callable[..., Any]], Any], hosts: Iterable[str] = ()
    ) -> None:
        names = {_name(host) for host in hosts}
        self._app = app
        self._every = "*" in names
        self._names = {*LOOPBACK, *names}

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer a request (PEP 3333)."""
        header = environ.get("HTTP_HOST", "")
        match = _HOST.fullmatch(header.lower())
        if match is None:
            return _refuse("400 Bad Request", _MALFORMED, start_response)
        if not self._every and not self._knows(match[1]):
            answer = _ANSWER.format(host=match[1])
            return _refuse("421 Misdirected Request", answer, start_response)
        return self._app(environ, start_response)  # type: ignore[no-any-return]

    def _knows(self, host: str) -> bool:
        if host in self._names or f".{host}" in self._names:
            return True
        return any(name[:1] == "." and host.endswith(name) for name in self._names)


def _name(text: str) -> str:
    """Return the name as a browser sends it in ``Host``."""
    if text == "*":
        return text
    dot = "." if text.startswith(".") else ""
    with suppress(ValueError):
        return f"[{ipaddress.IPv6Address(text.removeprefix('[').removesuffix(']'))}]"
    try:
        name = dot + text.removeprefix(".").encode("idna").decode("ascii").lower()
    except UnicodeError:
        name = ""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{text!r:.80} is not a host name: write it without scheme and port, for instance "
            "www.example.org"
        )
    return name


def _refuse(status: str, text: str, start_response: Callable[..., Any]) -> Iterable[bytes]:
    body = text.encode()
    start_response(
        status,
        [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
        ],
    )
    return [body]
