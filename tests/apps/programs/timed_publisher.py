"""Append entries whose data is the time at which they were sent."""

from __future__ import annotations

import sys
import time

from ssekit import Event
from ssekit.brokers import connect

url, count, pause, channel = sys.argv[1:]
broker = connect(url)
for _ in range(int(count)):
    time.sleep(float(pause))
    broker.append(channel, Event(str(time.time())))
