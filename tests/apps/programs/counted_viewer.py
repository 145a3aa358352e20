"""Read a hub's stream in a process of its own, and say so, until killed."""

from __future__ import annotations

import sys

from ssekit import Hub
from ssekit.testing import connect

with Hub(sys.argv[1]) as hub, connect(hub.stream("news"), timeout=60) as client:
    next(client)
    print("reading", flush=True)
    next(client)
