"""Runs a WSGI application as a CGI script: ``ssekit.cgi.run(app)``.

The standard library's ``wsgiref.handlers.CGIHandler`` would do for pages.  A stream needs what it
lacks: every block leaves the process at once, heartbeats go out while the source blocks, SIGTERM
and a closed pipe end the source properly, and its life is bounded, because each stream is a process
of the CGI host.  Sources: RFC 3875 (CGI 1.1), and PEP 3333 for the application's side.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

from ssekit.host import DISCONNECTED, Ended
from ssekit.host.process import ProcessClient

MAX_SECONDS = 60.0
"""How long a CGI stream lives by default; the client then connects again and resumes."""

FAILED = (
    b"Status: 500 Internal Server Error\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
    b"The application failed; the server's error log says why.\n"
)
"""The whole answer of a CGI process that failed before it had sent anything."""


def run(app: Callable[..., Iterable[bytes]], *, max_seconds: float = MAX_SECONDS) -> None:
    """Answer the one request of this CGI process with the WSGI application ``app``.

    ``max_seconds`` bounds the life of a stream: it then ends between two events, with a
    ``retry:``, and the client comes back for the rest.  ``math.inf`` lifts the bound.

    Raises ValueError if ``max_seconds`` is not above 0.
    """
    if not max_seconds > 0:
        raise ValueError(f"max_seconds must be seconds above 0, not {max_seconds!r}")
    client = ProcessClient(math.inf, max_seconds)
    answer = _Answer(client)
    with client.signals():
        try:
            answer.send(app(environment(client), answer.start))
        except Ended:
            pass  # Outside a stream: the process was told to end, or nobody reads.
        except Exception:
            import traceback  # A start that goes well is the sooner without.

            traceback.print_exc(file=sys.stderr)  # The gateway logs it.
            if not answer.begun:
                client.send_head(FAILED)
            sys.exit(1)


def environment(client: ProcessClient) -> dict[str, Any]:
    """Return the WSGI environ of this process's request (PEP 3333, "environ Variables")."""
    encoding, errors = sys.getfilesystemencoding(), "surrogateescape"
    environ: dict[str, Any] = {
        name: value.encode(encoding, errors).decode("latin-1") for name, value in os.environ.items()
    }
    environ.setdefault("REQUEST_METHOD", "GET")
    environ.setdefault("SCRIPT_NAME", "")
    environ.setdefault("PATH_INFO", "")
    environ.setdefault("QUERY_STRING", "")
    environ.setdefault("SERVER_NAME", "localhost")
    environ.setdefault("SERVER_PORT", "80")
    environ.setdefault("SERVER_PROTOCOL", "HTTP/1.0")
    https = environ.get("HTTPS", "off").lower() in ("on", "1")
    environ.update(
        {
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "https" if https else "http",
            "wsgi.input": sys.stdin.buffer,
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": False,
            "wsgi.multiprocess": True,
            "wsgi.run_once": True,
            "ssekit.client": client,
        }
    )
    return environ


class _Answer:
    """One answer: what ``start_response`` was told, and the bytes of it that have left."""

    def __init__(self, client: ProcessClient) -> None:
        self.begun = False
        self._client = client
        self._head = b""

    def start(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        """``start_response`` of PEP 3333."""
        if exc_info:
            if self.begun:
                raise exc_info[1].with_traceback(exc_info[2])
        elif self._head:
            raise AssertionError("start_response was called twice without exc_info")
        self._head = head(status, headers)
        return self.write

    def write(self, block: bytes) -> None:
        """``write`` of PEP 3333: the block has left on return."""
        if not self._head:
            raise AssertionError("the application gave a block before it called start_response")
        if not block:
            return
        if not self.begun:
            self.begun = True
            self._client.send_head(self._head)
        self._client.send(block)

    def send(self, blocks: Iterable[bytes]) -> None:
        try:
            for block in blocks:
                self.write(block)
                if self._client.ended == DISCONNECTED:
                    break
            if not self.begun:
                self.begun = True
                self._client.send_head(self._head)
        finally:
            close = getattr(blocks, "close", None)
            if close is not None:
                close()


def head(status: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """Return the head of a CGI answer (RFC 3875, section 6)."""
    lines = [f"Status: {status}", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")
