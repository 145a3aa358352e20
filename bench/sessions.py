"""State, ends and producers of channels, while everything around them is killed.

`bench.chaos` makes its rows of this, one for each kind of log.  Each channel has a session of its
own (`bench.apps.session`): events without a key, values of keys, removals, and an end, by whoever
publishes, by a producer, or by what becomes of that.  Viewers are threads with real connections,
half of them restless and some that stop reading now and then; they come back as an EventSource
does, until they are answered 204.  What each has seen is then compared with what was published.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import cycle, pairwise
from typing import NamedTuple
from urllib.parse import urlencode

from bench.logs import postgres_server, redis_server
from bench.processes import ROOT, until
from bench.settings import Settings
from ssekit import Event, Hub
from ssekit.brokers import parse_id
from tests.clients import Client
from tests.servers import Server, gunicorn

APP = "bench.apps.session_app:app"
PROGRAM = [sys.executable, "-m", "bench.apps.session"]
VIEWERS = 40
SECONDS = 12.0
"""How long a session publishes."""
PAUSE = 0.01
PERIOD = 2.0
"""Seconds between two calamities."""
REASONS = {
    "job": "finished",
    "answer": "finished",
    "failing": "failed",
    "endless": "lost",  # its process is killed
    "stopped": "cancelled",
}


class Session:
    """One channel's, in a process of its own, or in the server's."""

    def __init__(self, url: str, server: Server, channel: str, kind: str, count: int) -> None:
        self.channel = channel
        self.reason = REASONS[kind]
        self.stored: dict[str, int] = {}  # of events without a key: their numbers, by id
        self.uncertain: set[int] = set()
        self.final: dict[str, int] | None = None
        self.process: subprocess.Popen[bytes] | None = None
        if url == "memory:":
            query = {"channel": channel, "kind": kind, "count": count, "pause": PAUSE}
            self._lines = urllib.request.urlopen(f"{server.url}/?{urlencode(query)}")
        else:
            self.process = subprocess.Popen(
                [*PROGRAM, url, channel, kind, str(count), str(PAUSE)],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # A killed server is what it is meant to meet.
            )
            self._lines = self.process.stdout
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        with self._lines:
            for line in self._lines:
                said = json.loads(line)
                if "final" in said:
                    self.final = said["final"]
                elif said.get("id"):
                    self.stored[said["id"]] = said["n"]
                elif "n" in said:
                    self.uncertain.add(said["n"])

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


class Faults(NamedTuple):
    """What no viewer may have seen."""

    lost: int = 0
    repeated: int = 0
    older_values: int = 0
    lost_states: int = 0
    lost_ends: int = 0
    repeated_ends: int = 0
    false_resets: int = 0
    problems: int = 0


FAULTS = [field.replace("_", " ") for field in Faults._fields]


class Watcher(threading.Thread):
    """One viewer, with what a page would know of its channels."""

    def __init__(self, server: Server, channels: list[str], patience: float, nap: float) -> None:
        super().__init__(daemon=True)
        self.channels = channels
        self.joined: str | None = None
        self.over = False  # whether it was answered 204
        self.connections = 0
        self.arrived = 0
        self._url = f"{server.url}/?{urlencode([('channel', name) for name in channels])}"
        self._patience = patience
        self._nap = nap
        self._stopped = False
        self._last = ""
        self._events: dict[str, list[tuple[str, int]]] = {name: [] for name in channels}
        self._values: dict[str, dict[str, int]] = {name: {} for name in channels}
        self._newest: dict[tuple[str, str], int] = {}
        self._ends: Counter[tuple[str, str]] = Counter()
        self._older = self._resets = self._problems = 0
        self.start()

    def run(self) -> None:
        while not (self._stopped or self.over):
            try:
                self._look()
            except OSError:
                time.sleep(random.uniform(0.01, 0.05))

    def stop(self) -> None:
        self._stopped = True
        self.join(20)

    def _look(self) -> None:
        headers = {"Last-Event-ID": self._last} if self._last else {}
        stays = time.monotonic() + random.expovariate(1 / self._patience)
        with Client(self._url, headers=headers) as client:
            self.connections += 1
            self.over = client.status == 204
            if client.status not in (200, 204):
                self._problems += 1
                time.sleep(0.05)
            while not self._stopped and time.monotonic() < stays:
                self._take(client)
                if client.ended or not (client.read(0.2) or client.status == 200):
                    break
                if self._nap and self.arrived % 50 == 49:
                    time.sleep(self._nap)
            self._take(client)

    def _take(self, client: Client) -> None:
        events, client.events = client.events, []
        client.body = b""
        for event in events:
            self.arrived += 1
            self._last = event.id or ""
            self._see(event)

    def _see(self, event: Event) -> None:
        said = json.loads(event.data)
        if event.event == "stream-open":
            self.joined = event.id
        elif event.event == "stream-reset":
            self._resets += 1
        elif event.event == "stream-end":
            self._ends[said["channel"], said["reason"]] += 1
        elif event.event == "stream-remove":
            self._values[said["channel"]].pop(said["key"], None)
        elif "key" in said:
            of = said["channel"], said["key"]
            self._older += said["n"] < self._newest.get(of, -1)
            self._newest[of] = said["n"]
            self._values[of[0]][of[1]] = said["n"]
        else:
            self._events[said["channel"]].append((str(event.id), said["n"]))

    def faults(self, sessions: dict[str, Session]) -> Faults:
        found = Faults(
            older_values=self._older,
            false_resets=self._resets,
            problems=self._problems + (not self.over),
        )
        for channel in self.channels:
            found = _sum(found, self._faults_in(sessions[channel]))
        return found

    def _faults_in(self, session: Session) -> Faults:
        since = parse_id(self.joined or "0-0")
        due = {one for one in session.stored if parse_id(one) > since}
        seen = self._events[session.channel]
        ids, numbers = [one for one, _ in seen], [n for _, n in seen]
        order = [parse_id(one) for one in ids]
        ends = {of: many for of, many in self._ends.items() if of[0] == session.channel}
        right = ends.pop((session.channel, session.reason), 0)
        foreign = set(numbers) - set(session.stored.values()) - session.uncertain
        return Faults(
            lost=len(due - set(ids)),
            repeated=len(numbers) - len(set(numbers)) + sum(a >= b for a, b in pairwise(order)),
            lost_states=int((session.final or {}) != self._values[session.channel]),
            lost_ends=int(right == 0),
            repeated_ends=max(0, right - 1) + sum(ends.values()),
            # The last one of a producer that was killed may not have been said.
            problems=max(0, len(foreign) - (session.reason == "lost")),
        )


def _sum(one: Faults, other: Faults) -> Faults:
    return Faults(*map(sum, zip(one, other, strict=True)))


class Stage(NamedTuple):
    """A log, its server, and what happens to them every now and then."""

    url: str
    server: Server
    calamities: list[Callable[[], None]]


@contextmanager
def _stage(kind: str) -> Iterator[Stage]:
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ssekit-chaos-"))
        url, kill = f"sqlite:///{folder}/hub.db", None
        if kind == "memory":
            url = "memory:"
        elif kind == "redis":
            redis = stack.enter_context(redis_server())
            url, kill = redis.url, _killing(redis.kill, redis.start)
        elif kind == "postgresql":
            postgres = stack.enter_context(postgres_server())
            url, kill = postgres.url, _killing(postgres.kill, postgres.start)
        workers = "1" if kind == "memory" else "3"
        server = stack.enter_context(gunicorn(APP, "--workers", workers, env={"HUB": url}))

        def kill_worker() -> None:
            with suppress(ProcessLookupError, IndexError):
                os.kill(server.children()[-1], signal.SIGKILL)

        calamities = [] if kind == "memory" else [kill_worker, kill_worker]
        yield Stage(url, server, calamities + ([kill] if kill else []))


def _killing(kill: Callable[[], None], start: Callable[[], None]) -> Callable[[], None]:
    def killing() -> None:
        kill()
        time.sleep(0.3)
        start()

    return killing


def play(settings: Settings, kind: str) -> dict[str, float | None]:
    """Play one scenario; returns the columns of its row, with a fault in each of `Faults`."""
    kinds = ["job", "answer", "failing"] + (["endless", "stopped"] if kind != "memory" else [])
    seconds = SECONDS * min(1.0, max(0.3, settings.scale))
    with _stage(kind) as stage, ExitStack() as stack:
        sessions = {}
        for number, name in enumerate(kinds):
            channel = f"{name} {number}"
            count = round(seconds / PAUSE)
            sessions[channel] = Session(stage.url, stage.server, channel, name, count)
            stack.callback(sessions[channel].end)
        watchers = [
            Watcher(stage.server, channels, [120.0, 0.7][n % 2], [0.0, 0.0, 0.3][n % 3])
            for n, channels in enumerate(_chosen(list(sessions), settings.scaled(VIEWERS, 8)))
        ]
        for watcher in watchers:
            stack.callback(watcher.stop)
        waited = _until_over(stage, list(sessions.values()), watchers, seconds)
        faults = Faults()
        for watcher in watchers:
            faults = _sum(faults, watcher.faults(sessions))
    return {
        "viewers": len(watchers),
        "published": sum(len(session.stored) for session in sessions.values()),
        "unanswered": sum(len(session.uncertain) for session in sessions.values()),
        "arrived": sum(watcher.arrived for watcher in watchers),
        "connections": sum(watcher.connections for watcher in watchers),
        **dict(zip(FAULTS, faults, strict=True)),
        "until lost, s": waited,
    }


def _chosen(channels: list[str], count: int) -> Iterator[list[str]]:
    """Channels for each viewer: one, or two for every fourth."""
    for n in range(count):
        one, other = (channels[(n + k) % len(channels)] for k in (0, 1 + n // 4 % 2))
        yield [one, other] if n % 4 == 3 else [one]


def _until_over(
    stage: Stage, sessions: list[Session], watchers: list[Watcher], seconds: float
) -> float | None:
    """Let calamities happen while sessions publish, and end those that do not end.

    Returns the seconds until the channel of a producer that was killed has ended.
    """
    until(lambda: all(watcher.joined for watcher in watchers), 30, "all viewers to join")
    calamities, began = cycle(stage.calamities), time.monotonic()
    endless = [one for one in sessions if one.reason in ("lost", "cancelled")]
    others = [one for one in sessions if one not in endless]
    # Not at the ends: a producer that cannot reach the log to say "failed" has ended as "lost".
    while stage.calamities and time.monotonic() < began + seconds * 0.7:
        time.sleep(PERIOD)
        next(calamities)()
    for one in others:
        one.reader.join(60)
    waited = None
    if endless:
        with Hub(stage.url) as hub:
            waited = _end(hub, endless)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not all(watcher.over for watcher in watchers):
        time.sleep(0.05)
    return waited


def _end(hub: Hub, endless: list[Session]) -> float:
    """Kill a producer, and cancel the channel of another; the seconds until the first has ended."""
    [killed] = [one for one in endless if one.reason == "lost"]
    [stopped] = [one for one in endless if one.reason == "cancelled"]
    hub.status(killed.channel)  # From here on this process would notice.
    killed.end()
    began = time.monotonic()
    hub.cancel(stopped.channel)
    until(lambda: hub.status(killed.channel).state == "finished", 60, "a lost producer's end")
    return time.monotonic() - began
