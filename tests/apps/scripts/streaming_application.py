"""A CGI script of a WSGI application: an event, then what the environment's WAIT names."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from ssekit import Stream, every
from ssekit.cgi import run

WAITS = {"sleep": lambda: time.sleep(60), "every": lambda: list(every(60)), "fail": lambda: 1 / 0}


def source():
    try:
        yield "first"
        WAITS[os.environ["WAIT"]]()
    finally:
        print("source ended", file=sys.stderr, flush=True)


run(Stream(source, heartbeat=0.1), max_seconds=float(os.environ.get("SSEKIT_MAX_SECONDS", "60")))
