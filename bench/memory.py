"""What an idle subscriber costs the server in memory.

It is the proportional set size (PSS) of the server's processes, as the kernel counts it: its growth
from 100 subscribers, when all that is made once is there, to 10,000, by the subscriber.  The
kernel's own memory for a socket is in no process and is the same for all.
"""

from __future__ import annotations

from bench.fanout import available
from bench.load import clients
from bench.measuring import Schedule, deliver, open_streams
from bench.processes import proportional_set_size
from bench.results import Results
from bench.settings import Settings
from bench.subjects import FANOUT, OURS, PEERS, Subject

NAME = "memory"
SUBSCRIBERS = 10_000
OF_PEERS = 3000  # some of them need minutes and gigabytes for more
FIRST = 100


def run(settings: Settings, results: Results) -> None:
    """Open idle subscribers of every subject and weigh them."""
    results.title(NAME, "idle subscribers, PSS of the server's processes")
    for _ in range(settings.rounds):
        for subject in available(NAME, settings, results, OURS + PEERS):
            _weigh(settings, results, subject, SUBSCRIBERS if subject in OURS else OF_PEERS)
    value = results.median(NAME, FANOUT, "KB each")
    results.at_most(NAME, "KB of the worker for an idle subscriber", value, 0.8)


def _weigh(settings: Settings, results: Results, subject: Subject, full: int) -> None:
    first, more = settings.scaled(FIRST, 20), settings.scaled(full - FIRST, 100)
    with clients(settings.cores[1]) as load, subject.start(settings.cores[0]) as server:

        def weight() -> int:
            return sum(map(proportional_set_size, server.pids))

        open_streams(server, load, first)
        deliver(server, load, Schedule(3))
        before = weight()
        seconds = open_streams(server, load, more)
        results.put(
            NAME,
            subject.name,
            {
                "subscribers": first + more,
                "KB each": (weight() - before) / 1024 / more,
                "all, MB": weight() / 1024**2,
                "seconds to open": seconds,
            },
        )
