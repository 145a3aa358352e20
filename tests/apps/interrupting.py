"""Publishes from a signal handler that interrupts publishing.  URL [gevent]

Prints how many events were acknowledged and refused; what was acknowledged is in the log, once.
"""

from __future__ import annotations

import sys

if sys.argv[2:] == ["gevent"]:
    import gevent.monkey

    gevent.monkey.patch_all()

import itertools
import signal
import time
from types import FrameType

from ssekit import BrokerUnavailable
from ssekit.brokers import Retention, connect
from tests.logs import body, data, everything

broker = connect(sys.argv[1], Retention(history=1_000_000))
start = broker.tip()
acknowledged: dict[str, str] = {}  # by data, its id
refused: list[BrokerUnavailable] = []
interruptions = itertools.count(1)


def publish(sent: str) -> None:
    try:
        entry = broker.append("news", body(sent))
    except BrokerUnavailable as error:
        refused.append(error)
    else:
        acknowledged[sent] = entry.id


def interrupt(number: int, frame: FrameType | None) -> None:
    publish(f"interrupting {next(interruptions)}")


signal.signal(signal.SIGALRM, interrupt)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
published = 0
start_time = time.monotonic()
# A busy machine, whose disk is asked to keep each event, needs longer for as many.
while (took := time.monotonic() - start_time) < 2 or (published <= 100 and took < 40):
    publish(f"published {published}")
    published += 1
signal.setitimer(signal.ITIMER_REAL, 0)
assert len(set(acknowledged.values())) == len(acknowledged), "one id for two events"
found = everything(broker, start, "news", limit=1000)
stored = [(sent, entry.id) for sent, entry in zip(data(found), found, strict=True)]
assert sorted(stored) == sorted(acknowledged.items()), "what is stored is what was acknowledged"
assert all(f"published {n}" in acknowledged for n in range(published)), "the interrupted are stored"
assert next(interruptions) > 100
for error in refused:
    assert not error.maybe_stored, error
    assert "signal handler" in str(error), error
broker.append("news", body("afterwards"))
broker.close()
print(f"{len(acknowledged)} acknowledged, {len(refused)} refused")
