"""The event that each program of the loop bench sends, 20 times a second to each client."""

from __future__ import annotations

import time

INTERVAL = 0.05
SIZE = 82


def data(number: int) -> str:
    """Return the data of a client's event, as ``load.c`` reads it: its number and the time."""
    return f"@{number},{time.monotonic_ns()},".ljust(SIZE, "x")
