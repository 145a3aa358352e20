"""Follow a broker in a patched process while greenlets and native threads publish."""

from __future__ import annotations

import gevent.monkey

gevent.monkey.patch_all()
import sys
import time
from statistics import median

import gevent
from gevent.monkey import get_original

from ssekit import Event
from ssekit.brokers import connect

sleep, start_thread = get_original("time", "sleep"), get_original("_thread", "start_new_thread")
broker = connect(sys.argv[1], 10_000)
cursor = broker.tip()
waits, seen, gaps = [], [], []


def follow():
    global cursor
    while len(seen) < 20 + 3 * 200:
        entries, cursor = broker.follow(cursor, 20)
        now = time.time()
        waits.extend(now - float(entry.event.data) for entry in entries)
        seen.extend(entries)


def publish(channel, count, pause, sleep):
    for _ in range(count):
        sleep(pause)
        broker.append(channel, Event(str(time.time())))


def tick():
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
epoch = cursor.split("-")[0]
assert [entry.id for entry in seen] == [f"{epoch}-{n}" for n in range(1, 621)]
assert median(gaps) < 0.1, gaps
closer = gevent.spawn(broker.follow, cursor, 60)
gevent.sleep(0.05)
start_thread(broker.close, ())
closer.join(10)
assert type(closer.exception).__name__ == "HubClosed", closer.exception
print("all arrived")
