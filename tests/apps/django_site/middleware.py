"""Middleware that a system check is to judge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest

GetResponse = Callable[[HttpRequest], Any]


def gathering(get_response: GetResponse) -> GetResponse:
    """Joins the blocks of each response, as an optimizer of pages would."""

    def respond(request: HttpRequest) -> Any:
        response = get_response(request)
        if response.streaming:
            response.streaming_content = [b"".join(response.streaming_content)]
        return response

    return respond


def counting(get_response: GetResponse) -> GetResponse:
    """Looks at each block, and passes it on."""

    def respond(request: HttpRequest) -> Any:
        response = get_response(request)
        response.streaming_content = map(bytes, response.streaming_content)
        return response

    return respond


def asking(get_response: GetResponse) -> GetResponse:
    """Cannot answer a request of nobody."""

    def respond(request: HttpRequest) -> Any:
        request.user.get_username()  # type: ignore[attr-defined]
        return gathering(get_response)(request)

    return respond
