"""One source, one client: a source of events as a WSGI application.

`Stream` is the application, `every` the timer of a source, and `Stop` ends a client's reconnecting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssekit.lazy import exports

if TYPE_CHECKING:
    from ssekit.stream.response import last_event_id
    from ssekit.stream.source import Stop
    from ssekit.stream.stream import Stream
    from ssekit.stream.timer import every

__all__ = ["Stop", "Stream", "every", "last_event_id"]

__getattr__ = exports(
    __name__,
    {
        "Stop": "ssekit.stream.source",
        "Stream": "ssekit.stream.stream",
        "every": "ssekit.stream.timer",
        "last_event_id": "ssekit.stream.response",
    },
)
