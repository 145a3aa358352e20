"""Waiting for a condition with a deadline, and judging times: no test sleeps for luck."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], seconds: float = 10.0, what: str = "") -> T:
    """Return the first true value of ``condition``; fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            name = what or getattr(condition, "__name__", "the condition")
            raise AssertionError(f"waited {seconds} s for {name}; last value: {value!r}")
        time.sleep(0.005)
    return value


def mostly_below(bound: float, measure: Callable[[], float]) -> bool:
    """Tell whether at least three of five measures are below ``bound``.

    For times that a busy machine may lengthen now and then.  What a measure asserts has to hold
    each time.
    """
    took: list[float] = []
    while len(took) < 5:
        took.append(measure())
        below = sum(one < bound for one in took)
        if below == 3 or len(took) - below == 3:
            break
    print(f"took {took}, to be below {bound} s mostly")
    return below == 3


def until_asleep(*waiting: threading.Thread | ThreadPoolExecutor) -> None:
    """Wait until these threads, or the pool's, sleep in what they were given to do.

    A thread sleeps if the kernel says so at two looks, between which it has not moved.
    """

    pools = [one for one in waiting if isinstance(one, ThreadPoolExecutor)]
    single = [one for one in waiting if isinstance(one, threading.Thread)]

    def threads() -> list[threading.Thread]:
        return [*single, *(thread for pool in pools for thread in pool._threads)]

    def places() -> list[tuple[int, int] | None]:
        frames = sys._current_frames()
        return [
            (id(frame), frame.f_lasti) if (frame := frames.get(thread.ident or 0)) else None
            for thread in threads()
        ]

    def asleep() -> bool:
        before = places()
        time.sleep(0.01)  # The interpreter is theirs if they want it.
        begun = not any(pool._work_queue.qsize() for pool in pools) and None not in before
        return begun and before == places() and all(map(_sleeps, threads()))

    until(asleep, 10, "the threads to sleep")


def _sleeps(thread: threading.Thread) -> bool:
    stat = Path(f"/proc/self/task/{thread.native_id}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "S"
