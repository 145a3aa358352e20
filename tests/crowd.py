"""Many viewers, several kinds of publishers, and the count of what arrived.

Each viewer is a thread with a real connection, which does what an EventSource does: it comes back
with its last id, whatever ends the connection.  A restless one also leaves by itself, again and
again.  At the end every viewer must have had every event of its channels that was published since
it joined: once, in order.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from itertools import pairwise
from typing import NamedTuple
from urllib.parse import urlencode

from ssekit import Event
from ssekit.brokers import parse_id
from tests.clients import Client
from tests.commands import program, ran
from tests.servers import ROOT
from tests.waiting import until

Stored = Mapping[str, tuple[str, str]]


class _Connection(Client):
    """A client that keeps events and not bytes."""

    def _take(self, data: bytes) -> None:
        self.events += self.decoder.feed(data)


class Viewer(threading.Thread):
    """One viewer of some channels.

    ``patience`` is how many events it stays for, on average; ``naps`` are seconds for which it
    reads nothing, after each fifty events.
    """

    def __init__(
        self,
        address: str,
        channels: Collection[str],
        *,
        patience: float | None = None,
        by_query: bool = False,
        naps: float = 0.0,
    ) -> None:
        super().__init__(daemon=True)
        self.channels = frozenset(channels)
        self.joined: str | None = None
        self.seen: list[Event] = []
        self.resets: list[str] = []
        self.connections = 0
        self.problems: list[str] = []
        self._address = address
        self._patience = patience
        self._by_query = by_query
        self._naps = naps
        self._rested = 0
        self._last = ""
        self._over = False
        self.start()

    def run(self) -> None:
        while not self._over:
            try:
                self._look()
            except OSError:
                time.sleep(random.uniform(0.01, 0.05))  # the server is away: not a busy loop

    def _look(self) -> None:
        query = [("channel", channel) for channel in sorted(self.channels)]
        headers = {"Accept": "text/event-stream"}
        if self._last and self._by_query:
            query.append(("last_event_id", self._last))
        elif self._last:
            headers["Last-Event-ID"] = self._last
        address = f"{self._address}?{urlencode(query)}"
        stays = random.expovariate(1 / self._patience) if self._patience else float("inf")
        with _Connection(address, headers=headers) as connection:
            self.connections += 1
            if connection.status != 200:
                self.problems.append(f"status {connection.status}")
                time.sleep(0.05)
            until = len(self.seen) + stays
            self._take(connection)
            while not self._over and len(self.seen) < until and not connection.ended:
                connection.read(0.2)
                self._take(connection)
                if self._naps and len(self.seen) - self._rested > 50:
                    self._rested = len(self.seen)
                    time.sleep(self._naps)

    def _take(self, connection: _Connection) -> None:
        events, connection.events = connection.events, []
        for event in events:
            self._last = event.id or ""
            if event.event == "stream-open":
                if self.joined is not None:
                    self.problems.append(f"opened twice, at {self.joined} and {event.id}")
                self.joined = event.id
            elif event.event == "stream-reset":
                self.resets.append(self._last)
            else:
                self.seen.append(event)

    def end(self) -> None:
        self._over = True
        self.join(20)

    def due(self, stored: Stored) -> list[tuple[str, str]]:
        """The ids and data of all events for this viewer since it joined, in order."""
        since = parse_id(self.joined or "0-0")
        ids = sorted((one for one in stored if parse_id(one) > since), key=parse_id)
        return [(one, stored[one][1]) for one in ids if stored[one][0] in self.channels]

    def faults(self, stored: Stored, uncertain: Collection[tuple[str, str]]) -> Faults:
        due = self.due(stored)
        known = {one for one, _ in due}
        ids = [str(event.id) for event in self.seen]
        # A publish that raised and may have been stored arrives at most once; nothing else does.
        others = [str(event.data) for event in self.seen if event.id not in known]
        may_be = {data for channel, data in uncertain if channel in self.channels}
        return Faults(
            lost=len(known - set(ids)),
            repeated=len(ids) - len(set(ids)) + len(others) - len(set(others)),
            disordered=sum(parse_id(a) > parse_id(b) for a, b in pairwise(ids)),
            foreign=len(set(others) - may_be),
            wrong=sum(stored[str(e.id)][1] != e.data for e in self.seen if e.id in known),
            false_alarms=len(self.resets),
            problems=len(self.problems),
        )


class Faults(NamedTuple):
    """What a viewer must have had none of."""

    lost: int = 0
    repeated: int = 0
    disordered: int = 0
    foreign: int = 0
    wrong: int = 0
    false_alarms: int = 0
    problems: int = 0


class Crowd:
    """Viewers of one server."""

    def __init__(self, viewers: Iterable[Viewer]) -> None:
        self.viewers = list(viewers)

    def __enter__(self) -> Crowd:
        until(lambda: all(viewer.joined for viewer in self.viewers), 30, "all viewers to join")
        return self

    def __exit__(self, *_: object) -> None:
        for viewer in self.viewers:
            viewer._over = True
        for viewer in self.viewers:
            viewer.end()

    @property
    def arrived(self) -> int:
        return sum(len(viewer.seen) for viewer in self.viewers)

    def faults(self, publishers: Publishers, seconds: float = 60) -> Faults:
        """Wait until everything has come, and a little longer for what must not come."""
        stored = publishers.stored
        due = [(viewer, len(viewer.due(stored))) for viewer in self.viewers]
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and any(len(one.seen) < count for one, count in due):
            time.sleep(0.05)
        time.sleep(0.3)
        found = [viewer.faults(stored, publishers.uncertain) for viewer in self.viewers]
        return Faults(*map(sum, zip(*found, strict=True)))

    def check(self, publishers: Publishers) -> None:
        assert self.faults(publishers) == Faults()
        assert not [viewer.problems for viewer in self.viewers if viewer.problems]


class Publishers:
    """All kinds of publishers of one hub, at once, each in a process of its own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.stored: dict[str, tuple[str, str]] = {}
        """What a publish returned: id to channel and data."""
        self.uncertain: list[tuple[str, str]] = []
        """What a publish raised for and may have stored."""
        self.refused = 0
        self._threads: list[threading.Thread] = []
        self._problems: list[BaseException] = []

    def _begin(self, work: object, *arguments: object) -> None:
        def run() -> None:
            try:
                work(*arguments)  # type: ignore[operator]
            except BaseException as error:
                self._problems.append(error)

        self._threads.append(threading.Thread(target=run, daemon=True))
        self._threads[-1].start()

    def join(self, seconds: float = 120) -> None:
        for thread in self._threads:
            thread.join(seconds)
            assert not thread.is_alive(), "a publisher hangs"
        assert not self._problems, self._problems

    @property
    def busy(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def process(
        self, channel: str, name: str, count: int, pause: float = 0.0, size: int = 0
    ) -> None:
        """A Python program that publishes in a loop, and goes on when a publish raises."""
        self._begin(self._process, channel, name + "." * size, count, pause)

    def _process(self, channel: str, name: str, count: int, pause: float) -> None:
        with subprocess.Popen(
            program("publisher", self.url, channel, name, str(count), str(pause)),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                found = json.loads(line)
                if found["id"]:
                    self.stored[found["id"]] = (channel, found["data"])
                elif found["maybe"]:
                    self.uncertain.append((channel, found["data"]))
                else:
                    self.refused += 1
        assert process.returncode == 0

    def command_line(self, channel: str, name: str, count: int) -> None:
        """``ssekit publish``, a line for each event."""
        self._begin(self._command_line, channel, name, count)

    def _command_line(self, channel: str, name: str, count: int) -> None:
        lines = [f"{name} {n}" for n in range(count)]
        done = ran(
            *("publish", channel, "--lines", "--url", self.url), input="\n".join(lines).encode()
        )
        assert done.returncode == 0, done.stderr
        ids = done.stdout.split()
        self.stored |= {one: (channel, line) for one, line in zip(ids, lines, strict=True)}

    def script(self, channel: str, name: str, count: int) -> None:
        """A CGI script that publishes one event each time it is run."""
        self._begin(self._script, channel, name, count)

    def _script(self, channel: str, name: str, count: int) -> None:
        for n in range(count):
            query = urlencode({"channel": channel, "data": f"{name} {n}"})
            request = {"GATEWAY_INTERFACE": "CGI/1.1", "REQUEST_METHOD": "POST"}
            done = subprocess.run(
                [sys.executable, "-m", "tests.apps.publishing_script"],
                cwd=ROOT,
                env={**os.environ, **request, "QUERY_STRING": query, "HUB": self.url},
                capture_output=True,
                text=True,
                check=True,
            )
            self.stored[done.stdout.split("\n\n")[1].strip()] = (channel, f"{name} {n}")

    def request(self, address: str, channel: str, name: str, count: int) -> None:
        """Requests to the server, which publishes in whichever of its workers it is."""
        self._begin(self._request, address, channel, name, count)

    def _request(self, address: str, channel: str, name: str, count: int) -> None:
        for n in range(count):
            data = f"{name} {n}"
            try:
                with Client(f"{address}?{urlencode({'channel': channel, 'data': data})}") as client:
                    answer = client.until_end().decode()
            except (OSError, AssertionError):
                # The worker was killed in the middle: nobody knows, as with any request.
                self.uncertain.append((channel, data))
                time.sleep(0.05)
            else:
                if client.status == 200 and client.cleanly:
                    self.stored[answer] = (channel, data)
                else:
                    self.uncertain.append((channel, data))
