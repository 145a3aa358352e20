"""A script that waits a minute before its first event."""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from ssekit.script import environ, send

assert environ is not None  # The run begins with the first look at its request.
print("not yet", file=sys.stderr, flush=True)
time.sleep(60)
send("too late")
