"""Publish events and print of each, as JSON, what became of it."""

from __future__ import annotations

import json
import sys
import time

from ssekit import BrokerUnavailable, Hub

url, channel, name, count, pause = sys.argv[1:]
hub = Hub(url, history=100_000)
for n in range(int(count)):
    data = f"{name} {n}"
    said = {"id": None, "maybe": False, "data": data}
    try:
        said["id"] = hub.publish(channel, data).id
    except BrokerUnavailable as error:
        said["maybe"] = error.maybe_stored
        time.sleep(0.05)
    print(json.dumps(said), flush=True)
    if float(pause):
        time.sleep(float(pause))
hub.close()
