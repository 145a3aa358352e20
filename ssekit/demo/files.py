"""The page and its parts, read once and served with headers that keep other sites out of it."""

from __future__ import annotations

from pathlib import Path

from werkzeug import Request, Response

_FOLDER = Path(__file__).parent / "page"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# The page loads nothing but its own files, and connects to its own server only.
_POLICY = "; ".join(
    [
        "default-src 'none'",
        *(f"{kind}-src 'self'" for kind in ("script", "style", "img", "connect")),
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
_HEADERS = {
    # "private": the page has the room's token in it.
    "Cache-Control": "private, no-cache",
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_TOKEN = b'<meta name="room-token" content="%b">'


class Files:
    """The files of the page by name."""

    def __init__(self) -> None:
        self._files = {
            path.name: path.read_bytes() for path in _FOLDER.iterdir() if path.suffix in _TYPES
        }
        self.names = tuple(self._files)

    def page(self, request: Request, token: str) -> Response:
        """Return the page, with the token that its room sends ("" for none)."""
        page = self._files["index.html"].replace(_TOKEN % b"", _TOKEN % token.encode())
        return _answer(request, page, ".html")

    def part(self, request: Request, name: str) -> Response:
        """Return a file that the page asks for."""
        return _answer(request, self._files[name], Path(name).suffix)


def _answer(request: Request, content: bytes, suffix: str) -> Response:
    answer = Response(content, content_type=_TYPES[suffix])
    answer.headers.update(_HEADERS)
    answer.add_etag()
    answer.make_conditional(request.environ)
    return answer
