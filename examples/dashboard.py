"""A dashboard of five metrics: who opens it sees all five at once, and who is slow sees the newest.

gunicorn -k gevent dashboard:app
python dashboard.py        # in another terminal: it publishes what it measures
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from flask import Flask, Response, send_file

from ssekit import Hub
from ssekit.hub import default_url
from ssekit.stream import Stream

app = Flask(__name__)
hub = Hub(default_url())


@app.get("/")
def page() -> Response:
    return send_file("dashboard.html")


@app.get("/events")
def events() -> Stream:
    return hub.stream("metrics")


def measure() -> dict[str, str]:
    """Return five metrics of this Linux."""
    load, _, longer, running, _ = Path("/proc/loadavg").read_text().split()
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1024**2
    uptime = Path("/proc/uptime").read_text().split()[0]
    return {
        "load": load,
        "load, 15 min": longer,
        "processes": running,
        "free memory": f"{free} MiB",
        "up": f"{uptime} s",
    }


def main() -> None:
    while True:
        for name, value in measure().items():
            hub.publish("metrics", {"name": name, "value": value}, key=name)
        time.sleep(1)


if __name__ == "__main__":
    main()
