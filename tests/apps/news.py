"""A hub behind each kind of wrapping, and addresses to publish and to look inside."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

from ssekit import BrokerUnavailable, Hub, Stream
from ssekit.host import batch_send
from ssekit.stream.admission import open_streams
from tests.apps.sources import upper

logging.basicConfig(level=logging.INFO)
batch_send.BATCH = int(os.environ.get("BATCH", batch_send.BATCH))
if os.environ.get("TURNS"):  # A delivery to a few is one to very many.
    from ssekit.hub import fanout

    fanout.AT_ONCE, fanout.PART, fanout.SLICE = 1, 1, 0.0
limit = os.environ.get("MAX_STREAMS")
hub = Hub(
    os.environ.get("HUB", "memory:"),
    history=int(os.environ.get("HISTORY", "1000")),
    max_streams=int(limit) if limit else None,
)


def taking_fails(step: str) -> None:
    """Let a step of taking a connection over fail."""
    from ssekit.host import wsgi_servers
    from ssekit.hub import fanout

    def fail(*_: object) -> None:
        raise OSError(f"{step} failed")

    if step == "viewer":
        fanout.Viewer = fail  # type: ignore[assignment,misc]
    elif step == "options":
        fanout.bound_unsent = fail  # type: ignore[assignment]
    else:
        for kind in (wsgi_servers.Gunicorn, *wsgi_servers.Gunicorn.__subclasses__()):
            kind.abandon = fail  # type: ignore[assignment,method-assign]


if os.environ.get("TAKING_FAILS"):
    taking_fails(os.environ["TAKING_FAILS"])
beat = float(os.environ.get("BEAT", "0.1"))
flask = Flask(__name__)


@flask.get("/")
def view() -> Any:
    return hub.stream("news", heartbeat=beat)


def listening(environ: dict[str, Any], start_response: Any) -> Any:
    channels = parse_qs(environ["QUERY_STRING"]).get("channel", ["news"])
    return hub.stream(*channels, heartbeat=beat)(environ, start_response)


def publishing(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    query = parse_qs(environ["QUERY_STRING"])
    channel = query.get("channel", ["news"])[0]
    padding = "y" * int(query.get("padding", ["0"])[0])
    ids = [hub.publish(channel, data + padding).id or "" for data in query["data"]]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return ["\n".join(ids).encode()]


def inside(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    follower = hub._opened._follower
    taken = follower.distributor if follower is not None else None
    descriptors = len(os.listdir("/proc/self/fd"))
    return [f"{0 if taken is None else len(taken)} {descriptors}".encode()]  # type: ignore[arg-type]


def passing(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    """Middleware that changes nothing, which nobody but itself can know."""
    yield from listening(environ, start_response)


def count(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % open_streams()]


def garbage(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """How much the collector finds since it was asked last, and nothing in between."""
    gc.disable()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % gc.collect()]


def fork(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """What a child says after it has closed its copy of the hub."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    reader, writer = os.pipe()
    if not os.fork():
        try:
            hub.close()
            os.write(writer, b"closed")
        finally:
            os._exit(0)
    try:
        return [os.read(reader, 100)]
    finally:
        os.close(reader)
        os.close(writer)


@Stream
def away() -> list[str]:
    raise BrokerUnavailable("the source's own broker is away")


app = ProxyFix(
    DispatcherMiddleware(
        listening,
        {
            "/flask": flask,
            "/upper": upper(listening),
            "/passing": passing,
            "/publish": publishing,
            "/inside": inside,
            "/garbage": garbage,
            "/open": count,
            "/fork": fork,
            "/away": away,
        },
    )
)
