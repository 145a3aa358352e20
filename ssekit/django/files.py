"""``ssekit.js`` as a view: `ssekit.browser.files` answers, so that both say the same."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse

from ssekit.browser import files


def file(request: HttpRequest, name: str) -> HttpResponse:
    """Serve ``ssekit.js`` or the name that has its hash, whether over WSGI or ASGI."""
    response = HttpResponse()
    del response.headers["Content-Type"]

    def start(status: str, headers: list[tuple[str, str]]) -> None:
        code, _, response.reason_phrase = status.partition(" ")
        response.status_code = int(code)
        for header, value in headers:
            response.headers[header] = value

    asked: dict[str, Any] = {"REQUEST_METHOD": request.method, "PATH_INFO": f"/{name}"}
    if "HTTP_IF_NONE_MATCH" in request.META:
        asked["HTTP_IF_NONE_MATCH"] = request.META["HTTP_IF_NONE_MATCH"]
    response.content = b"".join(files(asked, start))
    return response
