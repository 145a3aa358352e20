"""What an idle subscriber costs the server in memory.

It is the proportional set size (PSS) of the server's processes, as the kernel counts it: its growth
from 100 subscribers, when all that is made once is there, to 10,000, by the subscriber.  The
kernel's own memory for a socket is in no process and is the same for all.  Subscribers come one
after the other, 128 of them at a time, and in two rows all at once, as after a restart: what a
worker has to hold of them at the same time leaves holes in its memory.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

from bench.fanout import available
from bench.load import clients
from bench.measuring import Schedule, deliver, open_streams
from bench.processes import proportional_set_size
from bench.results import Results
from bench.servers import Server, gunicorn
from bench.settings import Settings
from bench.subjects import FANOUT, OURS, PEERS

NAME = "memory"
SUBSCRIBERS = 10_000
OF_PEERS = 3000  # some of them need minutes and gigabytes for more
FIRST = 100
OURS_AT_ONCE = "ssekit, all at once"
AT_ONCE = {
    OURS_AT_ONCE: "ssekit.gunicorn.worker.Worker",
    "ssekit, all at once, -k gevent": "gevent",
}
"""Rows, and the workers of gunicorn's that they have."""


def run(settings: Settings, results: Results) -> None:
    """Open idle subscribers of every subject and weigh them."""
    results.title(NAME, "idle subscribers, PSS of the server's processes")
    for _ in range(settings.rounds):
        for subject in available(NAME, settings, results, OURS + PEERS):
            full = SUBSCRIBERS if subject in OURS else OF_PEERS
            _weigh(settings, results, subject.name, subject.start, full)
        if settings.wants(FANOUT):
            for name, worker in AT_ONCE.items():
                start = partial(_worker, worker)
                _weigh(settings, results, name, start, SUBSCRIBERS, at_once=True)
    for name, most in ((FANOUT, 0.8), (OURS_AT_ONCE, 0.5)):
        if settings.wants(FANOUT):
            value = results.median(NAME, name, "KB each")
            results.at_most(NAME, f"{name}: KB of the worker for an idle subscriber", value, most)


def _worker(name: str, core: int) -> AbstractContextManager[Server]:
    return gunicorn("bench.apps.hub_app:app", core, {}, "-k", name)


def _weigh(
    settings: Settings,
    results: Results,
    name: str,
    start: Callable[[int], AbstractContextManager[Server]],
    full: int,
    *,
    at_once: bool = False,
) -> None:
    first, more = settings.scaled(FIRST, 20), settings.scaled(full - FIRST, 100)
    with clients(settings.cores[1]) as load, start(settings.cores[0]) as server:

        def weight() -> int:
            return sum(map(proportional_set_size, server.pids))

        open_streams(server, load, first)
        deliver(server, load, Schedule(3))
        before = weight()
        if at_once:
            server.flags = "a"
        seconds = open_streams(server, load, more)
        results.put(
            NAME,
            name,
            {
                "subscribers": first + more,
                "KB each": (weight() - before) / 1024 / more,
                "all, MB": weight() / 1024**2,
                "seconds to open": seconds,
            },
        )
