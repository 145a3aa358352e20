"""A CGI script that sends an event, then does what the environment's WAIT names."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from ssekit import every
from ssekit.script import send

WAITS = {"sleep": lambda: time.sleep(60), "every": lambda: list(every(60)), "fail": lambda: 1 / 0}

try:
    send("first")
    WAITS[os.environ["WAIT"]]()
finally:
    print("source ended", file=sys.stderr, flush=True)
