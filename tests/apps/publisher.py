"""Publishes the time, as another process: URL COUNT [PAUSE [CHANNEL]]."""

from __future__ import annotations

import sys
import time

from ssekit.brokers import connect
from tests.logs import body

url, count, pause, channel = [*sys.argv[1:], *["0.01", "news"][len(sys.argv) - 3 :]]
broker = connect(url)
for _ in range(int(count)):
    time.sleep(float(pause))
    broker.append(channel, body(time.time()))
broker.close()
