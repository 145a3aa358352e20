"""Wait for a lock of another connection in greenlets while others run."""

from __future__ import annotations

import gevent.monkey

gevent.monkey.patch_all()
import sqlite3
import sys
import time

import gevent

from ssekit import Event
from ssekit.brokers import connect

other = sqlite3.connect(sys.argv[1], isolation_level=None)
other.execute("BEGIN IMMEDIATE")
broker = connect("sqlite:///" + sys.argv[1])
start = broker.tip()
publishing = [gevent.spawn(broker.append, "news", Event(n)) for n in range(5)]
gaps, last = [], time.monotonic()
while sum(gaps) < 1:
    gevent.sleep(0.005)
    gaps.append(time.monotonic() - last)
    last += gaps[-1]
assert broker.read(["news"], start, 10) == ([], start)
assert not any(one.ready() for one in publishing)
other.execute("ROLLBACK")
gevent.joinall(publishing, raise_error=True)
print(sorted(gaps)[len(gaps) // 2] < 0.05, len(broker.read(["news"], start, 10)[0]))
other.close()
broker.close()
