"""A storm while others go on: how long they wait, on connections that are open and on new ones.

While it lasts, requests are asked on connections that are open already and on new ones, events are
published in the server's process and in this one, and viewers who are caught up get them.
"""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.load import Load
from bench.processes import BenchError
from bench.servers import Server
from ssekit import Hub
from tests.servers import seconds_without_processor

OPEN, NEW = 4, 2
"""Connections on which requests are asked one after the other, and threads that open new ones."""
PAUSE = 0.02
"""Seconds between two of them."""
HERE, ELSEWHERE = 0.1, 0.5
"""Seconds between two events that are published in the server's process, to a few viewers, and from
another one, to all that have come by then."""
SETTLE = 1.0
"""Seconds in which the server closes what a storm has left."""
CAUGHT_UP = 50
"""Viewers who are caught up, in each of two channels: groups 1 and 2 of the load."""
EVENT = 100


@dataclass
class Waits:
    """Seconds that something took, each time: by the clock, and while both sides had a core."""

    seconds: list[float] = field(default_factory=list)
    with_core: list[float] = field(default_factory=list)

    def p99(self) -> float:
        """In milliseconds, without the time in which the server or this side had no core."""
        return _p99(self.with_core)

    def p99_by_the_clock(self) -> float:
        """In milliseconds."""
        return _p99(self.seconds)


def _p99(seconds: list[float]) -> float:
    ordered = sorted(seconds)
    return ordered[int(len(ordered) * 0.99)] * 1000 if ordered else 0.0


def event(sequence: int) -> str:
    """Return an event's data, as the load reads it."""
    return f"@{sequence},{time.monotonic_ns()},".ljust(EVENT, "x")


class Probes:
    """What is asked and published, and how long each took."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._failures: list[BaseException] = []
        self.open, self.new, self.here, self.elsewhere = Waits(), Waits(), Waits(), Waits()

    def requests(self) -> None:
        """Ask on open connections and on new ones."""
        for _ in range(OPEN):
            self._begin(self.open, self._asking("/ready"), PAUSE)
        for _ in range(NEW):
            self._begin(self.new, self._ask_on_a_new_one, PAUSE)

    def publishes(self, hub: Hub | None, published: int) -> None:
        """Publish in the server's process, and by a hub of this one.

        ``published``: events that the load has yet to get in the storm's channel before these.
        """
        self._begin(self.here, self._asking("/live"), HERE)
        if hub is not None:
            numbers = itertools.count(published + 1)
            publish = hub.publish
            self._begin(self.elsewhere, lambda: publish("herd", event(next(numbers))), ELSEWHERE)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Go on until the block ends.  Raises BenchError if one was refused."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in self._threads:
                thread.join(60)
        if self._failures:
            raise BenchError(f"a request or a publish failed: {self._failures[0]!r}")

    def _begin(self, waits: Waits, work: Callable[[], object], pause: float) -> None:
        def go_on() -> None:
            try:
                while not self._over.is_set():
                    lacked = self._lacked()
                    began = time.monotonic()
                    work()
                    taken = time.monotonic() - began
                    waits.seconds.append(taken)
                    waits.with_core.append(max(taken - self._lacked() + lacked, 0.0))
                    self._over.wait(pause)
            except Exception as error:
                self._failures.append(error)

        self._threads.append(threading.Thread(target=go_on, daemon=True))

    def _lacked(self) -> float:
        """Return how long the server's worker, and this thread, had no core so far."""
        text = Path("/proc/thread-self/schedstat").read_text()
        return seconds_without_processor(self._server.worker) + int(text.split()[1]) / 1e9

    def _asking(self, path: str) -> Callable[[], object]:
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=60)

        def ask() -> None:
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise BenchError(f"{path} was answered with {answer.status}")

        return ask

    def _ask_on_a_new_one(self) -> None:
        get(self._server, "/plain")


def get(server: Server, path: str) -> str:
    """Return the body of a plain answer, asked for on a new connection."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    connection.request("GET", path, headers={"Connection": "close"})
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def plain_with_probes(server: Server, load: Load, viewers: int) -> Probes:
    """Ask as many plain requests as there will be viewers, and others beside them."""
    probes = Probes(server)
    probes.requests()
    with probes.running():
        load.ask(f"request {viewers} {server.port} /plain")
    return probes


def storm_with_probes(
    server: Server, load: Load, missed: int, come_back: Callable[[], None], hub: Hub | None = None
) -> dict[str, float | None]:
    """Have the viewers come back, and return what others waited meanwhile, in milliseconds.

    With a hub it also publishes to all who have come by then.
    """
    for group, path in ((1, "/events"), (2, "/here")):
        load.open(CAUGHT_UP, server.port, path, group=group)
    load.reset()
    probes = Probes(server)
    probes.requests()
    probes.publishes(hub, missed)
    get(server, "/turns/start")
    with probes.running():
        come_back()
    turns = json.loads(get(server, "/turns/stop"))
    here = _latency(load, 2, len(probes.here.seconds))
    elsewhere = _latency(load, 1, len(probes.elsewhere.seconds)) if hub else 0.0
    for group in (0, 1, 2):
        load.do("shut", group)
    load.ask("ended 60")
    load.reset()
    time.sleep(SETTLE)
    return {
        "request, open: p99 ms": probes.open.p99(),
        "by the clock": probes.open.p99_by_the_clock(),
        "request, new: p99 ms": probes.new.p99(),
        "publish here: p99 ms": probes.here.p99(),
        "publish elsewhere: p99 ms": probes.elsewhere.p99() if hub else None,
        "live event: p99 ms": max(here, elsewhere),
        "longest turn: ms of processor": turns["longest"],
        "collection": turns["longest collection"],
    }


def _latency(load: Load, group: int, published: int) -> float:
    """Return the p99 of a group's latencies in milliseconds, once all of it has every event."""
    deadline = time.monotonic() + 10
    while (report := load.report(group))["deliveries"] < CAUGHT_UP * published:
        if time.monotonic() > deadline:
            raise BenchError(f"viewers who were caught up have not got every event: {report}")
    if report["repeats"] or report["ended"] or report["cut"]:
        raise BenchError(f"viewers who were caught up were not served as they should: {report}")
    return float(report["p99"]) / 1000 if published else 0.0
