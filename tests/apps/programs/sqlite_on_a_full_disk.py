"""Append to a log until its files may not grow, and go on when they may again."""

from __future__ import annotations

import resource
import sys

from ssekit import BrokerUnavailable, Event
from ssekit.brokers import connect


def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


broker = connect(sys.argv[1])
start = broker.tip()
broker.append("news", Event("before"))
limit(100_000)
stored, refused = 1, 0
while refused < 5:
    try:
        broker.append("news", Event("x" * 1000))
        stored += 1
    except BrokerUnavailable as error:
        assert not error.maybe_stored
        assert sys.argv[1][10:] in str(error)
        refused += 1
entries, cursor = broker.follow(start, 1)
print(stored > 10, len(entries) == stored, broker.tip() == cursor)
limit(resource.RLIM_INFINITY)
broker.append("news", Event("after"))
print([entry.event.data for entry in broker.follow(cursor, 1)[0]])
broker.close()
