"""ssekit as its README has it: one hub, ``hub.stream`` for the clients, ``hub.publish``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from gevent import sleep

from bench.apps.schedule import Schedule
from ssekit import Hub

hub = Hub("memory:", history=int(os.environ.get("BENCH_HISTORY", "1000")))
_heartbeat = float(os.environ.get("BENCH_HEARTBEAT", "15"))
_streams = {name: hub.stream(name, heartbeat=_heartbeat) for name in ("bench", "many", "few")}


def publish(schedule: Schedule) -> None:
    """Publish each turn's events.

    At saturation the next turn begins when the last one has been delivered, which a subscription of
    our own tells: the hub would otherwise send several turns' events in one piece, and it is the
    price of single events that is asked for.
    """
    delivered = None if schedule.rate else hub.subscribe(schedule.channel)
    if delivered:
        next(delivered)  # stream-open
    for wait, sequences in schedule.turns():
        sleep(wait)
        for sequence in sequences:
            hub.publish(schedule.channel, schedule.data(sequence))
        if delivered:
            for _ in sequences:
                next(delivered)
    if delivered:
        delivered.close()


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Stream ``/events/CHANNEL``, follow a schedule on ``/publish``, answer anything else."""
    path = environ["PATH_INFO"]
    if path.startswith("/events"):
        return _streams[path.removeprefix("/events").strip("/") or "bench"](environ, start_response)
    if path == "/publish":
        publish(Schedule(environ["QUERY_STRING"]))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok\n"]
