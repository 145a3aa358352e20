"""The signals of a worker that was just forked.

It has the handlers of its master at first, which only note a signal for the master's loop.  A
SIGTERM that came then, in a deploy right after another, would be lost: the master would wait for
the worker, and kill it after ``graceful_timeout`` (30 seconds).
"""

from __future__ import annotations

import signal
import sys
from typing import NoReturn


def exit_on_signals() -> None:
    """Exit on the signals that end a worker, until gunicorn sets the worker's own handlers."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, _exit)


def _exit(*_: object) -> NoReturn:
    sys.exit(0)
