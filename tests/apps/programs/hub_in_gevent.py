"""Read a hub with several greenlets while a greenlet or a native thread publishes."""

from __future__ import annotations

import gevent.monkey

gevent.monkey.patch_all()
import sys
from itertools import islice

import gevent

from ssekit import Hub

hub = Hub(sys.argv[1], history=50)
readers = [hub.subscribe("news", "other") for _ in range(5)]
reading = [gevent.spawn(lambda reader: list(islice(reader, 1001)), reader) for reader in readers]
gevent.sleep(0.1)


def publish():
    for n in range(1000):
        hub.publish("news", n)


if sys.argv[2] == "greenlet":
    publish()
else:
    gevent.monkey.get_original("_thread", "start_new_thread")(publish, ())
gevent.joinall(reading, timeout=20, raise_error=True)
for one in reading:
    events = one.value
    assert events is not None, "somebody hangs"
    assert [event.data for event in events[1:]] == [str(n) for n in range(1000)], events[1:9]
hub.close()
print("well")
