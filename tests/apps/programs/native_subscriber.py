"""Read a hub in a native thread and in the main thread of a patched process."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()
import sys

import gevent

from ssekit import Hub

hub = Hub()


seen = []


def listen():
    for event in hub.subscribe("news"):
        seen.append(event.data)
        if event.data == "last":
            return seen
    return None


if sys.argv[1] == "the main thread":
    next(hub.subscribe("news"))
    gevent.sleep(0.1)
native = gevent.get_hub().threadpool.spawn(listen)
while not seen:  # stream-open: it has its place in the log
    gevent.sleep(0.01)
for data in ("one", "two", "last"):
    hub.publish("news", data)
    gevent.sleep(0.05)
with gevent.Timeout(10):
    print(*native.get())
    here = hub.subscribe("news")
    next(here)
    hub.publish("news", "afterwards")
    print(next(here).data)
