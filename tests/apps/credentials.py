"""Streams that say which cookie came with the request, for three kinds of ``origins``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from werkzeug import Request, Response

from ssekit import Stream, every


def who(request: Request) -> Iterator[str]:
    for _ in every(60):
        yield f"cookie {request.cookies.get('who', 'none')}"


named = Stream(who, origins=tuple(os.environ["ORIGINS"].split()))
anybody = Stream(who, origins="*")


def app(environ: dict[str, Any], start_response: Any) -> Any:
    path = environ["PATH_INFO"]
    if path == "/login":
        answer = Response("ok")
        answer.set_cookie("who", "ada", httponly=True)
        return answer(environ, start_response)
    return {"/named": named, "/anybody": anybody}[path](environ, start_response)
