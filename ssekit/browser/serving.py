"""Serves the one file of the browser's half.

There are two addresses: ``/ssekit.js``, for which a browser asks each time whether it has the
newest, and `Files.address`, whose name has the hash of the content, so that a browser never asks
again.  Nothing here depends on who asks, so any site may read it and any cache may keep it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

_MODULE = Path(__file__).with_name("ssekit.js")
_ALWAYS = [
    ("X-Content-Type-Options", "nosniff"),
    # A module is loaded in CORS mode, also without credentials, from a host for static files too.
    ("Access-Control-Allow-Origin", "*"),
    ("Cross-Origin-Resource-Policy", "cross-origin"),
]


class Files:
    """The WSGI application; `ssekit.browser.files` is the one that there is."""

    @cached_property
    def _content(self) -> bytes:
        return _MODULE.read_bytes()

    @cached_property
    def _hash(self) -> str:
        return hashlib.sha256(self._content).hexdigest()[:16]

    @property
    def address(self) -> str:
        """The name below the mount that changes with the content, such as ``ssekit.0a1b2c.js``."""
        return f"ssekit.{self._hash}.js"

    @property
    def integrity(self) -> str:
        """The value of an ``integrity`` attribute (Subresource Integrity)."""
        digest = hashlib.sha384(self._content).digest()
        return f"sha384-{base64.b64encode(digest).decode()}"

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer a request (PEP 3333)."""
        status, headers, body = self._answer(environ)
        start_response(status, [*_ALWAYS, *headers])
        return [body] if body and environ["REQUEST_METHOD"] != "HEAD" else []

    def _answer(self, environ: dict[str, Any]) -> tuple[str, list[tuple[str, str]], bytes]:
        caching = {
            "/ssekit.js": "no-cache",
            f"/{self.address}": "public, max-age=31536000, immutable",
        }.get(environ.get("PATH_INFO", ""))
        if caching is None:
            return _text("404 Not Found", [], f"Here are /ssekit.js and /{self.address}.\n")
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _text("405 Method Not Allowed", [("Allow", "GET, HEAD")], "Use GET.\n")
        tag = f'"{self._hash}"'
        headers = [("ETag", tag), ("Cache-Control", caching)]
        if _matches(environ.get("HTTP_IF_NONE_MATCH", ""), tag):
            return "304 Not Modified", headers, b""
        headers.append(("Content-Type", "text/javascript; charset=utf-8"))
        headers.append(("Content-Length", str(len(self._content))))
        return "200 OK", headers, self._content


files = Files()


def _matches(condition: str, tag: str) -> bool:
    """Whether ``If-None-Match`` names the tag; a proxy that compresses makes it weak (RFC 9110)."""
    tags = [part.strip().removeprefix("W/") for part in condition.split(",")]
    return tag in tags or condition.strip() == "*"


def _text(
    status: str, headers: list[tuple[str, str]], text: str
) -> tuple[str, list[tuple[str, str]], bytes]:
    body = text.encode()
    kind = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
    return status, [*headers, *kind], body
