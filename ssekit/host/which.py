"""Which kind of client a request has: gevent's, a thread's, or one that is given.

It looks at ``environ`` and at what has been patched already; only then is gevent imported.
"""

from __future__ import annotations

from typing import Any

from ssekit.host.client import Client
from ssekit.host.patched import under_gevent


def client_of(environ: dict[str, Any], heartbeat: float) -> Client:
    """Return the client behind a WSGI request."""
    given = environ.get("ssekit.client")
    if isinstance(given, Client):
        given.heartbeat = heartbeat
        return given
    if under_gevent():
        from ssekit.host.greenlets import GreenletClient

        client = GreenletClient(heartbeat)
        client.has_body = _has_body(environ)
        return client
    from ssekit.host.threads import ThreadClient

    return ThreadClient(heartbeat)


def prepare() -> None:
    """Import now what the first client needs, where it is known that it will."""
    if under_gevent():
        import ssekit.host.greenlets  # noqa: F401


def _has_body(environ: dict[str, Any]) -> bool:
    # RFC 9112, section 6: "The presence of a message body in a request is signaled by a
    # Content-Length or Transfer-Encoding header field."
    length = environ.get("CONTENT_LENGTH") or "0"
    return length != "0" or "HTTP_TRANSFER_ENCODING" in environ
