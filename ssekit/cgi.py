"""Runs a WSGI application as a CGI script: ``ssekit.cgi.run(app)``.

The standard library's ``wsgiref.handlers.CGIHandler`` would do for pages.  A stream needs what it
lacks: every block leaves the process at once, heartbeats go out while the source blocks, SIGTERM
and a closed pipe end the source properly, and its life is bounded, because each stream is a process
of the CGI host.  Sources: RFC 3875 (CGI 1.1), and PEP 3333 for the application's side.
"""

from __future__ import annotations

import atexit
import io
import math
import os
import sys
from collections.abc import Iterable
from fcntl import F_DUPFD_CLOEXEC, fcntl
from typing import Any

from ssekit.errors import SSEError
from ssekit.host import Ended
from ssekit.host.process import ProcessClient
from ssekit.host.wsgi_loop import Application, Exchange

__all__ = ["run"]

MAX_SECONDS = 60.0
"""How long a CGI stream lives by default; the client then connects again and resumes."""

FAILED = (
    b"Status: 500 Internal Server Error\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
    b"The application failed; the server's error log says why.\n"
)
"""The whole answer of a CGI process that failed before it had sent anything."""


def run(app: Application, *, max_seconds: float = MAX_SECONDS) -> None:
    """Answer the one request of this CGI process with the WSGI application ``app``.

    ``max_seconds`` bounds the life of a stream: it then ends between two events, with a
    ``retry:``, and the client comes back for the rest.  ``math.inf`` lifts the bound.

    Raises ValueError if ``max_seconds`` is not above 0.
    """
    if not max_seconds > 0:
        raise ValueError(f"max_seconds must be seconds above 0, not {max_seconds!r}")
    client = ProcessClient(math.inf, max_seconds, descriptor=take_output())
    exchange = Exchange(
        client, lambda status, headers: client.send_head(head(status, headers)), client.send
    )
    with client.signals():
        try:
            exchange.run(app, environment(client))
        except Ended:
            pass  # Outside a stream: the process was told to end, or its reader has gone.
        except Exception:
            import traceback  # A start that goes well is faster without it.

            traceback.print_exc(file=sys.stderr)  # The gateway logs it.
            if not exchange.begun:
                client.send_head(FAILED)
            sys.exit(1)


def is_cgi() -> bool:
    """Tell whether a CGI host has started this process (RFC 3875, section 4.1.4)."""
    return os.environ.get("GATEWAY_INTERFACE", "").startswith("CGI")


def guard_output() -> None:
    """Keep standard output for the answer alone.

    What anything else wrote there would be read as a header, or land between two events.  So a
    ``print`` raises `SSEError` from here on, and what other programs write, which this one starts,
    goes to standard error, where the gateway logs it.  A program that fails before it has answered
    is answered with `FAILED`.
    """
    if _process.output >= 0:
        return
    _process.output = fcntl(1, F_DUPFD_CLOEXEC, 3)
    try:
        os.dup2(2, 1)
    except OSError:  # There is no standard error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.stdout = _Guarded()
    atexit.register(_answer_failure)


def take_output() -> int:
    """Return the descriptor by which the answer leaves, for the one that answers."""
    guard_output()
    _process.answers = True
    return _process.output


def has_failed() -> bool:
    """Tell at the interpreter's exit whether it has printed the traceback of what ended it."""
    return getattr(sys, "last_value", None) is not None


class _Process:
    output = -1
    answers = False


_process = _Process()


def _answer_failure() -> None:
    if has_failed() and not _process.answers:
        os.write(_process.output, FAILED)


class _Guarded(io.TextIOBase):
    """Standard output, once it is kept for the answer."""

    def write(self, text: str) -> int:
        if text:
            raise SSEError(
                "standard output is this CGI script's answer: send() sends an event, respond() "
                "any other answer, and print(..., file=sys.stderr) goes to the server's log"
            )
        return 0

    @property
    def buffer(self) -> io.TextIOBase:
        return self  # Its bytes are refused like text.


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


def head(status: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """Return the head of a CGI answer (RFC 3875, section 6).

    Raises ValueError for a line break or NUL in it, which would add headers or begin the body.
    """
    lines = [f"Status: {status}", *(f"{name}: {value}" for name, value in headers)]
    for line in lines:
        if {"\r", "\n", "\0"} & set(line):
            raise ValueError(f"a header must not contain CR, LF or NUL: {line!r:.80}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
