"""For each line, answer in the middle of two milliseconds in which the processor is used.

It looks at the clock of the wall, as looking at its own would bring that up to date for others.
"""

from __future__ import annotations

import sys
import time


def burn(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


for _ in sys.stdin:
    burn(0.001)
    print("half", flush=True)
    burn(0.001)
