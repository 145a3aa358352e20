"""Connects to an http:// or https:// address, or says why it cannot, in bounded time.

This module knows names, addresses and TLS, but not what is sent on the connection.
"""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from urllib.parse import SplitResult, urlsplit

from ssekit.errors import SSEError

CONNECT = 5.0
"""Seconds to connect and to agree on TLS."""

_URL = re.compile(r"[\x21-\x7e]{1,4096}")


class BadURL(SSEError, ValueError):
    """Raised for a URL that cannot be requested."""


def check_url(url: str) -> SplitResult:
    """Return the URL's parts.  Raises `BadURL` for anything that is not an HTTP address."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises for a port that is not a number
    except ValueError as error:
        raise BadURL(f"{url!r:.200} is not a URL: {error}") from error
    if not _URL.fullmatch(url) or parts.scheme not in ("http", "https") or not parts.hostname:
        meant = "" if "://" in url else f"; did you mean http://{url.lstrip('/')}?"
        raise BadURL(f"{url!r:.200} is not an http:// or https:// address{meant:.200}")
    return parts


def connect(
    parts: SplitResult, insecure: bool, seconds: float, protocols: Sequence[str]
) -> socket.socket:
    """Return a connection to the address; for https, over TLS that offers ``protocols``.

    Raises OSError, or UnicodeError for an invalid host name, after ``seconds`` at the latest.
    """
    deadline = time.monotonic() + seconds
    secure = parts.scheme == "https"
    connection = _reach(parts.hostname or "", parts.port or (443 if secure else 80), deadline)
    if not secure:
        return connection
    try:
        context = ssl.create_default_context()
        if insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(list(protocols))
        connection.settimeout(_until(deadline))
        return context.wrap_socket(connection, server_hostname=parts.hostname)
    except BaseException:
        connection.close()
        raise


def _reach(host: str, port: int, deadline: float) -> socket.socket:
    """Connect to the first of the host's addresses that answers; each gets a share of the time."""
    failure: OSError = OSError("the name has no address")
    addresses = _look_up(host, port, _until(deadline))
    for number, address in enumerate(addresses):
        try:
            share = _until(deadline) / (len(addresses) - number)
            return socket.create_connection(address, timeout=share)
        except OSError as error:
            failure = error
    raise failure


def _look_up(host: str, port: int, seconds: float) -> list[tuple[str, int]]:
    """Resolve the name in a thread of its own, because a resolver may take longer than we wait."""
    found: SimpleQueue[list[tuple[str, int]] | Exception] = SimpleQueue()

    def resolve() -> None:
        try:
            entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found.put([(str(entry[4][0]), port) for entry in entries])
        except (OSError, UnicodeError) as error:
            found.put(error)

    threading.Thread(target=resolve, name="ssekit-doctor-resolver", daemon=True).start()
    try:
        answer = found.get(timeout=seconds)
    except Empty:
        raise OSError(f"the name was not resolved in {seconds:.1f} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _until(deadline: float) -> float:
    """The remaining seconds, never 0, which would make a socket non-blocking."""
    return max(deadline - time.monotonic(), 0.01)
