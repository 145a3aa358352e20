"""Two streams that name the process which serves them in a header: one waits, one is the hub's."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ssekit import Hub, Stream, every

process = [("X-Process", str(os.getpid()))]
hub = Hub("memory:")


def waiting() -> Iterator[None]:
    for _ in every(60):
        yield None


STREAMS = {
    "/waiting": Stream(waiting, headers=process),
    "/hub": hub.stream("news", headers=process),
}


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    stream = STREAMS.get(environ["PATH_INFO"])
    if stream is not None:
        return stream(environ, start_response)
    start_response("200 OK", [*process, ("Content-Length", "0")])
    return []
