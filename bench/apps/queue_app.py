"""What one writes without a toolkit: a generator with a queue for each client, under gevent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from gevent import queue, sleep

from bench.apps.schedule import Schedule

_clients: set[queue.Queue[bytes]] = set()


def events() -> Iterator[bytes]:
    """Yield what is published from now on, for one client."""
    mine: queue.Queue[bytes] = queue.Queue()
    _clients.add(mine)
    try:
        yield b":\n"
        while True:
            yield mine.get()
    finally:
        _clients.discard(mine)


def publish(schedule: Schedule) -> None:
    """Put each event into every client's queue."""
    for wait, sequences in schedule.turns():
        sleep(wait)
        for sequence in sequences:
            block = f"data: {schedule.data(sequence)}\nid: 1750000000000-{sequence}\n\n".encode()
            for client in _clients:
                client.put(block)
        while any(not client.empty() for client in _clients):
            sleep(0)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Stream ``/events``, follow a schedule on ``/publish``, answer anything else."""
    if environ["PATH_INFO"] == "/events":
        start_response("200 OK", [("Content-Type", "text/event-stream; charset=utf-8")])
        return events()
    if environ["PATH_INFO"] == "/publish":
        publish(Schedule(environ["QUERY_STRING"]))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok\n"]
