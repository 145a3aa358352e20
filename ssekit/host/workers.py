"""Runs many short jobs of a process from its event loop, each of which may wait.

One greenlet works through what is due.  Where a job waits, the event loop goes on, and another
greenlet works through the rest.  So a job that waits holds up no other, and those that do not wait
need no greenlet each.
"""

from __future__ import annotations

import os
import time
from collections import deque
from typing import Any, Protocol

import gevent
from greenlet import greenlet

from ssekit.host.logs import Logger
from ssekit.host.timers import SLICE
from ssekit.host.turns import NextTurn

log = Logger("ssekit.host")

IDLE = 8
"""Greenlets that are kept for the next jobs."""
_switch: Any = greenlet.switch


class Job(Protocol):
    """What is to be done."""

    def run(self) -> None:
        """Do it; it may wait."""


class Workers:
    """The greenlets of one process that do what is due."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self._hub = gevent.get_hub()
        self._jobs: deque[Job] = deque()
        self._idle: list[Any] = []
        self._begun = False
        self._until = 0.0
        self._turn = NextTurn(self._work)

    def add(self, job: Job) -> None:
        """Do a job in this turn of the event loop, or soon; to be called from the event loop."""
        self._jobs.append(job)
        if not self._begun:
            self._begun = True
            self._hub.loop.run_callback(self._work)

    def _work(self) -> None:
        self._until = time.monotonic() + SLICE
        try:
            while self._jobs and time.monotonic() < self._until:
                worker = self._idle.pop() if self._idle else greenlet(self._run, self._hub)
                worker.switch()  # Returns when all is done, when it waits, or when time is over.
        finally:
            self._begun = bool(self._jobs)
            if self._begun:
                self._turn.ask()

    def _run(self) -> None:
        here = gevent.getcurrent()
        while True:
            while self._jobs and time.monotonic() < self._until:
                try:
                    self._jobs.popleft().run()
                except BaseException:
                    log.exception("a job of the event loop failed")
            if len(self._idle) >= IDLE:
                return
            self._idle.append(here)
            _switch(self._hub)


_workers: list[Workers] = []


def workers_of_process() -> Workers:
    """Return those of this process; greenlets do not survive a fork."""
    if not _workers or _workers[0].process != os.getpid():
        _workers[:] = [Workers()]
    return _workers[0]
