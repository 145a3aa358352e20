"""The seeds' timer as an iterator: it waits through the host, and so is gone with its stream."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

from ssekit import host


def every(seconds: float) -> Iterator[int]:
    """Tick every ``seconds``: the first tick at once, then without drift.

    Ticks that were missed, because the source or the client was slow, are skipped; a tick's value
    is its number, counted with the missed ones.  Waiting ends when the client leaves, and so does
    the source.  Outside a stream it simply waits.

    Raises ValueError if ``seconds`` is not above 0.
    """
    if not 0 < seconds < math.inf:
        raise ValueError(f"every needs seconds above 0, not {seconds!r}")
    return _ticks(seconds)


def _ticks(seconds: float) -> Iterator[int]:
    start = time.monotonic()
    number = 0
    while True:
        yield number
        number = max(number, int((time.monotonic() - start) / seconds)) + 1
        while (left := start + number * seconds - time.monotonic()) > 0:
            host.current().wait(left)
