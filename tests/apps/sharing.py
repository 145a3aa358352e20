"""A hub that counts its work (``/counted``); ``/publish`` and ``/fill``, else channels."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import gevent.socket

from ssekit import Event, Hub
from ssekit.brokers.memory.broker import MemoryBroker
from ssekit.hub import entries, follower, pieces, viewers

counts: Counter[str] = Counter()


def counted(owner: Any, name: str, what: str) -> None:
    function: Callable[..., Any] = getattr(owner, name)

    def call(*arguments: Any, **options: Any) -> Any:
        counts[what] += 1
        return function(*arguments, **options)

    setattr(owner, name, call)


counted(Event, "encode", "encoded")
counted(entries, "encode_text", "encoded")
counted(viewers, "chunk", "framed")
counted(pieces, "chunk_of", "framed")
counted(pieces.Piece, "__init__", "pieces")
counted(MemoryBroker, "read", "reads")
counted(gevent.socket.socket, "sendall", "sent by the server")
counted(os, "writev", "sent")
follower.RECENT = 10  # type: ignore[attr-defined]
hub = Hub("memory:")


def app(environ: dict[str, Any], start_response: Any) -> Any:
    path = environ["PATH_INFO"].strip("/")
    if path not in ("publish", "fill", "counted"):
        return hub.stream(path, heartbeat=60)(environ, start_response)
    query = parse_qs(environ["QUERY_STRING"])
    start_response("200 OK", [("Content-Type", "application/json")])
    answer: object = None
    if path == "counted":
        answer = dict(counts)
        counts.clear()
    elif path == "publish":
        answer = [hub.publish("news", data).id for data in query["data"]]
    else:
        answer = hub.publish("news", "before").id
        for n in range(int(query["channels"][0])):
            hub.publish(f"own{n}", "missed")
        for _ in range(20):
            hub.publish("other", "newer")
    return [json.dumps(answer).encode()]
