"""Publish to a hub until its files may not grow, and go on when they may again."""

from __future__ import annotations

import resource
import sys

from ssekit import BrokerUnavailable, Hub
from ssekit.testing import connect


def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


hub = Hub(sys.argv[1])
stream = hub.stream("news", heartbeat=0.05)
with connect(stream, timeout=10) as viewer, connect(stream, timeout=10) as other:
    assert next(viewer).event == next(other).event == "stream-open"
    limit(100_000)
    ids, refused = [], 0
    while refused < 5:
        try:
            ids.append(hub.publish("news", "x" * 1000).id)
        except BrokerUnavailable as error:
            assert not error.maybe_stored
            refused += 1
    assert [next(viewer).id for _ in ids] == ids
    beats = viewer.body.count(b":\n")
    while viewer.body.count(b":\n") < beats + 5:
        viewer.read()
    with connect(stream, last_event_id=ids[0], timeout=10) as newcomer:
        assert [next(newcomer).id for _ in ids[1:]] == ids[1:]
    limit(resource.RLIM_INFINITY)
    ids.append(hub.publish("news", "after").id)
    assert next(viewer).id == ids[-1]
    assert [next(other).id for _ in ids] == ids
print(len(ids) > 10)
hub.close()
