"""A storm: all viewers connect at once, with the id of an event some time ago.

The yardstick is as many plain requests on new connections to the same gunicorn, and a C program
that sends the same bytes with one ``send`` for each.  The viewers come twice: alone, which is held
against the yardstick, and while a request is asked again and again on a connection that is open
already, and events are published.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

from bench import servers
from bench.load import Load, clients
from bench.logs import KINDS, new_log
from bench.measuring import EVENT, Schedule, deliver, open_streams
from bench.processes import BenchError, processor_seconds
from bench.results import Results
from bench.servers import Server
from bench.settings import Settings
from ssekit import Hub

NAME = "herd"
VIEWERS = 10_000
MISSED = (20, 100, 500)
OWN = 5
"""Events that each viewer missed in a channel of its own."""
PROBE = 0.02
"""Seconds between two requests on the connection that is open."""
FRAME = 118


def run(settings: Settings, results: Results) -> None:
    """Measure each broker with one shared channel, and with a channel for each viewer."""
    viewers = settings.scaled(VIEWERS, 50)
    results.title(NAME, f"{viewers:,} viewers that come back at once")
    for _ in range(settings.rounds):
        for broker in KINDS:
            if not settings.wants(broker):
                continue
            for missed in (*MISSED, 0):
                try:
                    _measure(settings, results, broker, viewers, missed)
                except BenchError as error:
                    results.note(NAME, f"{_name(broker, missed)}: {error}")


def fill(hub: Hub, events: int, own: int) -> str:
    """Publish what the viewers have missed; returns the id before it.

    ``events`` in the channel "herd", or `OWN` in each of so many channels.
    """
    before = hub.publish("herd", "before").id
    for n in range(own):
        for sequence in range(1, OWN + 1):
            hub.publish(f"own {n}", event(sequence))
    for sequence in range(1, events + 1):
        hub.publish("herd", event(sequence))
    return str(before)


def event(sequence: int) -> str:
    return f"@{sequence},{time.monotonic_ns()},".ljust(EVENT, "x")


def _name(broker: str, missed: int) -> str:
    return f"{broker}, {missed} missed" if missed else f"{broker}, {OWN} missed in own channels"


def _measure(settings: Settings, results: Results, broker: str, viewers: int, missed: int) -> None:
    own = 0 if missed else viewers
    with ExitStack() as stack:
        url = stack.enter_context(new_log(broker)).url
        if broker != "memory":
            with Hub(url) as hub:
                before = fill(hub, missed, own)
        load = stack.enter_context(clients(settings.cores[1]))
        server = stack.enter_context(
            servers.gunicorn("bench.apps.herd_app:app", settings.cores[0], {"HERD_HUB": url})
        )
        if broker == "memory":
            before = get(server, f"/fill?events={missed}&own={own}")
        plain = _spent(server, lambda: load.ask(f"request {viewers} {server.port} /plain"))[0]
        load.reset()
        path = f"/{'events' if missed else f'own/{viewers}'}?last_event_id={before}"

        def come_back() -> None:
            _come_back(load, server, viewers, path, missed or OWN)

        used, seconds = _spent(server, come_back)
        memory = _resident(server) / viewers
        load.do("shut", 0)
        load.ask("ended 60")
        load.reset()
        with _probe(server) as waits:
            come_back()
        sends = _sends(settings, viewers, missed or OWN)
    waits.sort()
    results.put(
        NAME,
        _name(broker, missed),
        {
            "all served: s": seconds,
            "processor: s": used,
            "yardstick: s": plain + sends,
            "x yardstick": used / (plain + sends),
            "request p99: ms": waits[int(len(waits) * 0.99)] * 1000 if waits else 0.0,
            "slowest request: ms": waits[-1] * 1000 if waits else 0.0,
            "resident KB a viewer": memory,
        },
    )
    value = results.median(NAME, _name(broker, missed), "x yardstick")
    results.at_most(NAME, f"{_name(broker, missed)}, times the yardstick", value, 1.4)


def _come_back(load: Load, server: Server, viewers: int, path: str, events: int) -> None:
    load.open(viewers, server.port, path)
    report = load.wait(events, 120)
    if report["repeats"] or report["ended"] or report["cut"]:
        raise BenchError(f"viewers were not served as they should: {report}")
    if report["deliveries"] < viewers * events:
        raise BenchError(f"of {viewers * events:,} events {report['deliveries']:,} arrived")


def _spent(server: Server, work: object) -> tuple[float, float]:
    """Processor time of the server, and seconds, that some work takes."""
    before, began = processor_seconds(server.pids), time.monotonic()
    work()  # type: ignore[operator]
    return processor_seconds(server.pids) - before, time.monotonic() - began


def _sends(settings: Settings, viewers: int, missed: int) -> float:
    """Processor seconds in which the C loop sends the same bytes to each viewer."""
    with clients(settings.cores[1]) as load, servers.loop(settings.cores[0]) as server:
        open_streams(server, load, viewers)
        return deliver(server, load, Schedule(1, size=missed * FRAME)).total


@contextmanager
def _probe(server: Server) -> Iterator[list[float]]:
    """Ask on an open connection, again and again; the seconds that each answer took."""
    waits: list[float] = []
    over = threading.Event()

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        for n in count():
            began = time.monotonic()
            connection.request("GET", "/live" if n % 10 == 0 else "/ready")
            connection.getresponse().read()
            waits.append(time.monotonic() - began)
            if over.wait(PROBE):
                break
        connection.close()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield waits
    finally:
        over.set()
        thread.join(60)


def get(server: Server, path: str) -> str:
    """Return the body of a plain answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    connection.request("GET", path)
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def _resident(server: Server) -> float:
    """KB of the worker's memory."""
    for line in Path(f"/proc/{server.worker}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return float(line.split()[1])
    return 0.0
