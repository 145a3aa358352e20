"""Streams with members: ``/?channel=room&member=ann``; ``/members`` is who is there, as JSON.

``/page`` is a page for browsers whose stream is that of its own query; ``/publish`` publishes in a
channel, and ``/pid`` says which worker answers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs

from ssekit import Hub
from ssekit.hub import presence
from tests import leases

leases.obey()
hub = Hub(os.environ.get("HUB", "memory:"))
presence.GRACE = float(os.environ.get("GRACE", presence.GRACE))

PAGE = b"""<!doctype html><title>members</title><script>
const seen = window.seen = [];
const source = new EventSource("/" + location.search);
for (const name of ["stream-join", "stream-leave", "stream-reset", "stream-open"])
  source.addEventListener(name, event => seen.push([name, JSON.parse(event.data).member]));
</script>"""


def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    query = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
    channel = query.get("channel", "room")
    kind = "text/plain"
    if environ["PATH_INFO"] == "/":
        member = (query["member"], query.get("value")) if "member" in query else None
        # A browser is back long before the leases of these tests run out.
        stream = hub.stream(channel, member=member, presence=True, heartbeat=0.5, retry=500)
        return stream(environ, start_response)
    if environ["PATH_INFO"] == "/members":
        answer = json.dumps(hub.members(channel)).encode()
    elif environ["PATH_INFO"] == "/publish":
        answer = (hub.publish(channel, query["data"]).id or "").encode()
    elif environ["PATH_INFO"] == "/pid":
        answer = b"%d" % os.getpid()
    else:
        answer, kind = PAGE, "text/html"
    start_response("200 OK", [("Content-Type", kind), ("Content-Length", str(len(answer)))])
    return [answer]
