"""Append entries for some seconds, or until it is killed, and print their ids."""

from __future__ import annotations

import sys
import time

from ssekit import Event
from ssekit.brokers import connect

url, seconds = [*sys.argv[1:], "inf"][:2]
broker = connect(url)
end = time.monotonic() + float(seconds)
while time.monotonic() < end:
    print(broker.append("news", Event("x" * 1000)).id, flush=True)
