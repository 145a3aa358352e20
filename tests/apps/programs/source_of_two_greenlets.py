"""Wait for events in several greenlets of one source."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()
import gevent

from ssekit import Hub, Stream

hub = Hub()
seen = []


def source():
    first, second = hub.subscribe("one"), hub.subscribe("two")
    next(first), next(second)

    def other():
        seen.extend(event.data for event in second)

    gevent.spawn(other)
    for event in first:
        seen.append(event.data)
        yield event


def serve():
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/"}
    for _ in Stream(source)(environ, lambda status, headers: None):
        pass


gevent.spawn(serve)
gevent.sleep(0.1)
for n in range(20):
    hub.publish("one", f"a{n}")
    hub.publish("two", f"b{n}")
    if n % 3 == 0:
        gevent.sleep(0.01)
gevent.sleep(0.2)
everything = sorted(f"{c}{n}" for c in "ab" for n in range(20))
print("all" if sorted(seen) == everything else seen)
