"""A storm: all viewers connect at once, with the id of an event some time ago.

The yardstick is as many plain requests on new connections to the same gunicorn, and a C program
that sends the same bytes with one ``send`` for each.  The viewers come three times: alone, which is
held against the yardstick, and twice while others ask, publish and read (`bench.storms`).  Only the
second time events are published to the viewers themselves: sending one to 10,000 takes long enough
to keep new connections waiting, on any server.  Each is measured with ssekit's worker and with a
plain gevent worker, which accepts 100 connections in a turn.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

from bench import servers
from bench.load import Load, clients
from bench.logs import KINDS, new_log
from bench.measuring import Schedule, deliver, open_streams
from bench.processes import BenchError, processor_seconds
from bench.results import Results
from bench.servers import Server
from bench.settings import Settings
from bench.storms import SETTLE, event, get, plain_with_probes, storm_with_probes
from ssekit import Hub

NAME = "herd"
VIEWERS = 10_000
MISSED = (20, 100, 500)
OWN = 5
"""Events that each viewer missed in a channel of its own."""
FRAME = 118
WORKERS = {"": ["-k", "ssekit.gunicorn.worker.Worker"], ", plain worker": []}
LIMITS = {
    "x yardstick": 1.4,
    "request, open: p99 ms": 100.0,
    "request, new: x plain's": 1.5,
    "publish here: p99 ms": 100.0,
    "publish elsewhere: p99 ms": 100.0,
    "live event: p99 ms": 250.0,
}
"""What each of these may be at most."""


def run(settings: Settings, results: Results) -> None:
    """Measure each broker with one shared channel, and with a channel for each viewer."""
    viewers = settings.scaled(VIEWERS, 50)
    results.title(NAME, f"{viewers:,} viewers that come back at once")
    kinds = [broker for broker in KINDS if settings.wants(broker)]
    rows = [
        (broker, missed, worker)
        for broker in kinds
        for worker in WORKERS
        for missed in (*MISSED, 0)
    ]
    for _ in range(settings.rounds):
        for broker, missed, worker in rows:
            name = _name(broker, missed) + worker
            try:
                results.put(NAME, name, _measure(settings, broker, viewers, missed, worker))
            except BenchError as error:
                results.note(NAME, f"{name}: {error}")
    for broker, missed, worker in rows:
        name = _name(broker, missed) + worker
        for column, limit in LIMITS.items():
            value = results.median(NAME, name, column)
            results.at_most(NAME, f"{name}: {column}", value, limit)


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


def _name(broker: str, missed: int) -> str:
    return f"{broker}, {missed} missed" if missed else f"{broker}, {OWN} missed in own channels"


def _measure(
    settings: Settings, broker: str, viewers: int, missed: int, worker: str
) -> dict[str, float | None]:
    own = 0 if missed else viewers
    with ExitStack() as stack:
        url = stack.enter_context(new_log(broker)).url
        if broker != "memory":
            with Hub(url) as hub:
                before = fill(hub, missed, own)
        load = stack.enter_context(clients(settings.cores[1]))
        server = stack.enter_context(
            servers.gunicorn(
                "bench.apps.herd_app:app", settings.cores[0], {"HERD_HUB": url}, *WORKERS[worker]
            )
        )
        if broker == "memory":
            before = get(server, f"/fill?events={missed}&own={own}")
        plain = _spent(server, lambda: load.ask(f"request {viewers} {server.port} /plain"))[0]
        load.reset()
        beside_plain = plain_with_probes(server, load, viewers)
        load.reset()
        path = f"/{'events' if missed else f'own/{viewers}'}?last_event_id={before}"

        def come_back() -> None:
            _come_back(load, server, viewers, path, missed or OWN)

        used, seconds = _spent(server, come_back)
        memory = _resident(server) / viewers
        load.do("shut", 0)
        load.ask("ended 60")
        load.reset()
        time.sleep(SETTLE)
        waits = storm_with_probes(server, load, missed, come_back)
        new = waits["request, new: p99 ms"] or 0.0
        if broker != "memory":
            with Hub(url) as hub:
                with_events = storm_with_probes(server, load, missed, come_back, hub)
            del with_events["request, new: p99 ms"]  # An event to all takes as long in itself.
            waits = {name: _most(waits.get(name), with_events.get(name)) for name in with_events}
        sends = _sends(settings, viewers, missed or OWN)
    return {
        "all served: s": seconds,
        "processor: s": used,
        "yardstick: s": plain + sends,
        "x yardstick": used / (plain + sends),
        **waits,
        "request, new: p99 ms": new,
        "request, new: x plain's": new / beside_plain.new.p99(),
        "resident KB a viewer": memory,
    }


def _most(*values: float | None) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _come_back(load: Load, server: Server, viewers: int, path: str, events: int) -> None:
    load.open(viewers, server.port, path)
    report = load.wait(events, 120)
    if report["repeats"] or report["gaps"] or report["ended"] or report["cut"]:
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


def _resident(server: Server) -> float:
    """KB of the worker's memory."""
    for line in Path(f"/proc/{server.worker}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return float(line.split()[1])
    return 0.0
