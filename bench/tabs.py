"""Eight tabs of one browser at 200 events a second, to which something happens all the time.

Tabs are closed, crash, are navigated away and brought back, frozen and thawed, or have their main
thread blocked, mostly the leader; servers are killed and started again.  At the end each tab must
have had every event since it opened, once and in order, and one connection must serve all.  How
long it takes until another tab leads is measured as well.
"""

from __future__ import annotations

import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from math import inf
from pathlib import Path

from bench.processes import BenchError, find_program
from bench.results import Results
from bench.settings import Settings
from ssekit import Hub
from tests.ports import free_port
from tests.remote import Chromium, ChromiumTab, Refused, chromium
from tests.servers import Server
from tests.tabs import (
    Publisher,
    Tabs,
    address,
    block,
    check,
    connections,
    kill,
    leave,
    role,
    settle,
    shows,
    site,
    until_open,
)
from tests.waiting import until

NAME = "tabs"
SECONDS, TABS, RATE = 300, 8, 200
HISTORY = 100_000
"""Events that the hub keeps: a tab that was away for long misses none."""
RELEASED, SILENT = 100, 3000
"""Milliseconds within which another tab leads: after a leader that is closed, crashes, is left or
frozen, and after one that is blocked.
"""
BECAME_LEADER = """statuses.filter(([, , , role], at) =>
    role === "leader" && statuses[at - 1]?.[3] !== "leader").map(([time]) => time)"""


def run(settings: Settings, results: Results) -> None:
    """Run one random sequence, whose seed is in the table's title."""
    program = find_program("chromium")
    if program is None:
        raise BenchError("needs chromium")
    seed = random.randrange(1_000_000)
    seconds = settings.scaled(SECONDS, 10)
    # A browser and its tabs are more than one core's clients.
    os.sched_setaffinity(0, set(settings.cores))
    with tempfile.TemporaryDirectory(prefix="ssekit-bench-") as folder, chromium(program) as made:
        results.title(NAME, f"{TABS} tabs, {RATE} events a second, {seconds} s, seed {seed}")
        _Play(made, Path(folder), random.Random(seed)).run(seconds, results)


class _Play:
    """One browser, one site, and what happens to them."""

    def __init__(self, browser: Chromium, folder: Path, chance: random.Random) -> None:
        self._browser = browser
        self._folder = folder
        self._chance = chance
        self._bind = ["--bind", f"127.0.0.1:{free_port()}"]
        self._tabs: list[ChromiumTab] = []
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._asleep: set[ChromiumTab] = set()
        self._blocked: set[ChromiumTab] = set()
        self._counts: dict[str, int] = {}
        self._checked = 0
        # When a leader's place was released, or its thread blocked for long, and when tabs led.
        self._ends: list[tuple[float, int]] = []
        self._led: list[float] = []

    def run(self, seconds: float, results: Results) -> None:
        with closing(Hub(address(self._folder), history=HISTORY)) as hub, ExitStack() as stack:
            self._stack = stack
            self._serve()
            with Publisher(hub, RATE) as publisher:
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    self._step()
                    time.sleep(self._chance.uniform(0.01, 0.8))
                while self._later:
                    self._due()
                    time.sleep(0.05)
                self._open_all()
                settle(self._tabs, 30)
                last = publisher.stop()
            for tab in self._tabs:
                shows(tab, f"seen.at(-1) === {last}", 30)
                self._check(tab, last)
                self._checked += 1
            until_open(self._server, 1)
            left = connections(self._server)
        for name, count in sorted(self._counts.items()):
            results.put(NAME, name, {"times": count})
        results.at_least(NAME, "tabs that had every event once and in order", self._checked, TABS)
        results.at_most(NAME, "connections for all tabs at the end", left, 1)
        self._takeovers("takeover of a released place", RELEASED, results)
        self._takeovers("takeover from a blocked leader", SILENT, results)

    def _takeovers(self, name: str, limit: int, results: Results) -> None:
        ends = [at for at, kind in self._ends if kind == limit]
        took = [min((led - at for led in self._led if led >= at), default=inf) for at in ends]
        if not took:
            return
        median, most = statistics.median(took), max(took)
        results.put(NAME, name, {"times": len(took), "median ms": median, "most ms": most})
        # The median: what a busy machine adds to some of them is not the protocol's.
        results.at_most(NAME, f"{name}, ms", median, limit)

    def _serve(self) -> None:
        self._server: Server = self._stack.enter_context(
            site(self._folder, *self._bind, HISTORY=str(HISTORY))
        )
        self._server.port = int(self._bind[1].rpartition(":")[2])
        self._there = Tabs(self._browser, self._server, TABS)

    def _check(self, tab: ChromiumTab, last: int | None = None) -> None:
        """Whether the tab has had everything until now, or until this number."""
        seen, marks, led = tab.evaluate(f"[seen, marks, {BECAME_LEADER}]")
        self._led += led
        if not seen and last is None:
            return
        try:
            assert "stream-reset" not in marks, "history was lost"
            check(seen, seen[-1] if last is None else last)
        except AssertionError as error:
            raise BenchError(f"a tab has not had all: {error}") from None

    def _step(self) -> None:
        self._due()
        self._open_all()
        awake = [tab for tab in self._tabs if tab not in self._asleep]
        if len(awake) < 3:
            return
        leaders = [tab for tab in awake if role(tab) == "leader"]
        tab = self._chance.choice(leaders if leaders and self._chance.random() < 0.6 else awake)
        happens = self._chance.choice(
            [self._close, self._crash, self._leave, self._freeze, self._freeze, self._block]
            + ([self._restart] if self._chance.random() < 0.3 else [])
        )
        name = happens.__name__.strip("_")
        self._counts[name] = self._counts.get(name, 0) + 1
        # A blocked tab may be the next in the queue, which is then another story.
        if tab in leaders and not self._blocked and name in ("close", "crash", "leave", "freeze"):
            self._ends.append((time.time() * 1000, RELEASED))
        happens(tab)

    def _open_all(self) -> None:
        while len(self._tabs) < TABS:
            self._tabs.append(self._there.open())

    def _due(self) -> None:
        now = time.monotonic()
        due = [action for at, action in self._later if at <= now]
        self._later = [(at, action) for at, action in self._later if at > now]
        for action in due:
            action()

    def _in(self, seconds: float, action: Callable[[], None]) -> None:
        self._later.append((time.monotonic() + seconds, action))

    def _forget(self, tab: ChromiumTab) -> None:
        self._check(tab)
        self._tabs.remove(tab)

    def _close(self, tab: ChromiumTab) -> None:
        self._forget(tab)
        tab.close()

    def _crash(self, tab: ChromiumTab) -> None:
        self._forget(tab)
        tab.crash()

    def _leave(self, tab: ChromiumTab) -> None:
        leave(tab)
        self._asleep.add(tab)
        self._in(self._chance.uniform(0.1, 5), lambda: self._back(tab))

    def _back(self, tab: ChromiumTab) -> None:
        tab.back()
        with suppress(Refused):
            until(lambda: tab.evaluate("window.shown?.length"), 10, "the page")
        self._asleep.discard(tab)

    def _freeze(self, tab: ChromiumTab) -> None:
        tab.freeze()
        self._asleep.add(tab)

        def thaw() -> None:
            tab.freeze(False)
            self._asleep.discard(tab)

        self._in(self._chance.uniform(0.1, 8), thaw)

    def _block(self, tab: ChromiumTab) -> None:
        milliseconds = self._chance.choice([300, 1500, 4000, 10_000])
        if role(tab) == "leader" and not self._blocked and milliseconds > SILENT:
            self._ends.append((time.time() * 1000, SILENT))
        block(tab, milliseconds / 1000)
        self._asleep.add(tab)
        self._blocked.add(tab)

        def unblocked() -> None:
            self._asleep.discard(tab)
            self._blocked.discard(tab)

        self._in(milliseconds / 1000 + 0.1, unblocked)

    def _restart(self, tab: ChromiumTab) -> None:
        kill(self._server)
        time.sleep(self._chance.uniform(0, 2))
        self._serve()
