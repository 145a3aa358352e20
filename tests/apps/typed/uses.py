"""What a user writes, with the types that the checkers have to find."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ssekit import Event, Hub, Stream, every
from ssekit.access import Grant
from ssekit.hub import Stats
from ssekit.testing import connect

hub = Hub("memory:", history=10)


@Stream
def clock() -> Iterator[Event]:
    for number in every(1):
        yield Event({"number": number}, event="tick", retry=1000)


def authorize(request: Any) -> Grant | None:
    return Grant(["news"], subject="ada")


endpoint: Stream = hub.endpoint(authorize, heartbeat=5)
published: Event = hub.publish("news", "text", key="a")
cursor: str = hub.position()
state: dict[str, Event] = hub.state("news")
stats: Stats = hub.stats()
open_streams: int = stats.server.streams
with connect(clock) as client:
    first: Event = next(client)
    name: str | None = first.event
