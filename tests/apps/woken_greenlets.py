"""Greenlets and native threads publish for a greenlet that follows.  URL"""

from __future__ import annotations

import gevent.monkey

gevent.monkey.patch_all()

import sys
import time
from collections.abc import Callable
from statistics import median

import gevent
from gevent.monkey import get_original

from ssekit import HubClosed
from ssekit.brokers import Entry, Retention, connect
from tests.logs import body, data

sleep, start_thread = get_original("time", "sleep"), get_original("_thread", "start_new_thread")
broker = connect(sys.argv[1], Retention(history=10_000))
start = broker.tip()
waits: list[float] = []
seen: list[Entry] = []
gaps: list[float] = []


def follow() -> None:
    cursor = start
    while len(seen) < 20 + 3 * 200:
        entries, cursor = broker.follow(cursor, 20)
        now = time.time()
        waits.extend(now - float(sent) for sent in data(entries))
        seen.extend(entries)


def publish(channel: str, count: int, pause: float, sleep: Callable[[float], None]) -> None:
    for _ in range(count):
        sleep(pause)
        broker.append(channel, body(time.time()))


def tick() -> None:
    last = time.monotonic()
    while True:
        gevent.sleep(0.01)
        now = time.monotonic()
        gaps.append(now - last)
        last = now


follower, ticker = gevent.spawn(follow), gevent.spawn(tick)
start_thread(publish, ("sparse", 20, 0.02, sleep))
while len(seen) < 20:
    gevent.sleep(0.01)
assert median(waits) < 0.05, waits
start_thread(publish, ("one", 200, 0.0002, sleep))
start_thread(publish, ("two", 200, 0, sleep))
gevent.spawn(publish, "three", 200, 0, time.sleep)
follower.join(30)
assert follower.ready(), (len(seen), "the follower hangs")
epoch = start.split("-")[0]
assert [entry.id for entry in seen] == [f"{epoch}-{n}" for n in range(1, 621)]
assert median(gaps) < 0.1, gaps
closer = gevent.spawn(broker.follow, broker.tip(), 60)
gevent.sleep(0.05)
start_thread(broker.close, ())
closer.join(10)
assert isinstance(closer.exception, HubClosed), closer.exception
print("all arrived")
