"""Waiting for a condition with a deadline: no test sleeps for luck."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
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


def at_best(attempt: Callable[[], float], tries: int = 5) -> Iterator[float]:
    """Yield what each try took.

    ``any(took < 2 for took in at_best(attempt))``: the machine may be busy with something else, so
    that a bound holds if it held once; what an attempt asserts has to hold each time.
    """
    for _ in range(tries):
        yield attempt()
