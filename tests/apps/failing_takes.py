"""A hub whose next taking over fails at a step of ours: `/fail?step=NAME`, then open a stream."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ssekit.host.disconnects import Disconnects
from ssekit.host.wsgi_servers import GunicornGreenlets
from ssekit.hub import fanout
from tests.apps import news

steps: dict[str, tuple[Any, str]] = {
    "duplicate": (os, "dup"),
    "viewer": (fanout, "Viewer"),
    "bound": (fanout, "bound_unsent"),
    "watch": (Disconnects, "watch"),
    "abandon": (GunicornGreenlets, "abandon"),
}
fails_next: set[str] = set()


def failing_once(step: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        if step in fails_next:
            fails_next.remove(step)
            raise RuntimeError(f"{step} fails")
        return function(*arguments)

    return call


for step, (owner, name) in steps.items():
    setattr(owner, name, failing_once(step, getattr(owner, name)))


def app(environ: dict[str, Any], start_response: Any) -> Any:
    if environ["PATH_INFO"] != "/fail":
        return news.app(environ, start_response)
    fails_next.add(environ["QUERY_STRING"].removeprefix("step="))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]
