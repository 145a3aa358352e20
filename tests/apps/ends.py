"""A hub whose channels end: streams with and without hub events, and addresses to end them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs

from werkzeug.middleware.dispatcher import DispatcherMiddleware

from ssekit import BrokerUnavailable, Hub

hub = Hub(os.environ.get("HUB", "memory:"), history=10_000)


def channels(environ: dict[str, Any]) -> list[str]:
    return parse_qs(environ["QUERY_STRING"]).get("channel", ["news"])


def listening(environ: dict[str, Any], start_response: Any) -> Any:
    return hub.stream(*channels(environ), heartbeat=0.5)(environ, start_response)


def quiet(environ: dict[str, Any], start_response: Any) -> Any:
    stream = hub.stream(*channels(environ), hub_events=False, heartbeat=0.5)
    return stream(environ, start_response)


streams = DispatcherMiddleware(listening, {"/quiet": quiet})


def passing(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    """Middleware that changes nothing, which nobody but itself can know."""
    yield from streams(environ, start_response)


def answer(start_response: Any, text: object) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(text).encode()]


def publishing(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    query = parse_qs(environ["QUERY_STRING"])
    padding = "y" * int(query.get("padding", ["0"])[0])
    (channel,) = channels(environ)
    for data in query["data"]:
        hub.publish(channel, data + padding)
    return answer(start_response, "published")


def finish(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    (channel,) = channels(environ)
    end = hub.finish(channel)
    return answer(start_response, end and end.id)


def fail(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    (channel,) = channels(environ)
    with suppress(RuntimeError), hub.producer(channel) as out:
        out.send(parse_qs(environ["QUERY_STRING"])["data"][0])
        raise RuntimeError("as a model does")
    return answer(start_response, "failed")


def away(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Have the log answer no question for ends, or again."""
    broker = hub._broker
    if "ends" in vars(broker):
        del broker.ends  # type: ignore[misc]
    else:
        broker.ends = unavailable  # type: ignore[method-assign]
    return answer(start_response, "away" if "ends" in vars(broker) else "back")


def unavailable(*_: object) -> Any:
    raise BrokerUnavailable("as in an outage")


def inside(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    follower = hub._opened._follower
    taken = follower.distributor if follower is not None else None
    return answer(start_response, f"{0 if taken is None else len(taken)} 0")  # type: ignore[arg-type]


app = DispatcherMiddleware(
    streams,
    {
        "/passing": passing,
        "/publish": publishing,
        "/finish": finish,
        "/fail": fail,
        "/inside": inside,
        "/away": away,
    },
)
