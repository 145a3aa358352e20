"""A hub that publishes an event whenever its log was looked at: between a replay and going live."""

from __future__ import annotations

import os
from typing import Any

from ssekit import Decoder, Event, Hub
from ssekit.brokers import Broker, parse_id
from ssekit.hub.entries import body_of

LOOKS = {"recent": 1, "read": 4, "follow": 4}
"""How many of the first looks of each kind; there may be fewer reads, as the follower is quick."""


def publish_in_between(broker: Broker) -> None:
    """Append "read 0", "follow 0", ... right after the log was looked at, before anybody knows."""

    def wrap(name: str) -> None:
        look = getattr(broker, name)
        texts = iter([f"{name} {n}" for n in range(LOOKS[name])])

        def and_then_append(*arguments: Any) -> Any:
            found = look(*arguments)
            text = next(texts, None)
            if text is not None:
                broker.append("news", body_of(Event(text)))
            return found

        setattr(broker, name, and_then_append)

    for name in LOOKS:
        wrap(name)


def assert_all_came_in_order(body: bytes) -> None:
    """Check what a viewer got who has missed 0, 1 and 2 after the log's first event."""
    events = Decoder().feed(body)
    data = [str(event.data) for event in events]
    assert data[:3] == ["0", "1", "2"]
    assert {"recent 0", *(f"follow {n}" for n in range(4))} <= set(data[3:])
    seqs = [parse_id(str(event.id))[1] for event in events]
    assert seqs == list(range(2, 2 + len(seqs)))


def app(environ: dict[str, Any], start_response: Any) -> Any:
    return hub.stream("news")(environ, start_response)


if "HUB" in os.environ:
    hub = Hub(os.environ["HUB"])
    publish_in_between(hub._broker)
