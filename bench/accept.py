"""10,000 streams opened, beside 10,000 plain requests answered by the same gunicorn.

Each plain request has a connection of its own, as each stream has, and as many are under way at the
same time.  A stream counts as open when its head has arrived.
"""

from __future__ import annotations

from bench.fanout import available
from bench.load import Load, clients
from bench.measuring import Schedule, deliver, open_streams
from bench.processes import BenchError, processor_seconds
from bench.results import Results
from bench.servers import Server
from bench.settings import Settings
from bench.subjects import FANOUT, OURS

NAME = "accept"
NUMBER = 10_000


def run(settings: Settings, results: Results) -> None:
    """Open streams and ask plain requests, in turn which comes first."""
    number = settings.scaled(NUMBER, 100)
    results.title(NAME, f"{number:,} streams opened, and {number:,} plain requests answered")
    for turn in range(settings.rounds):
        for subject in available(NAME, settings, results, OURS):
            with clients(settings.cores[1]) as load, subject.start(settings.cores[0]) as server:
                open_streams(server, load, 100)
                deliver(server, load, Schedule(3))
                _ask(server, load, 200)
                ways = [("streams", _open), ("plain", _ask)]
                took = {}
                for name, way in ways if turn % 2 else ways[::-1]:
                    before = processor_seconds(server.pids)
                    seconds = way(server, load, number)
                    took[name] = (seconds, processor_seconds(server.pids) - before)
            results.put(
                NAME,
                subject.name,
                {
                    "streams: s": took["streams"][0],
                    "streams: µs each": took["streams"][1] / number * 1e6,
                    "plain requests: s": took["plain"][0],
                    "plain requests: µs each": took["plain"][1] / number * 1e6,
                    "streams x plain": took["streams"][0] / took["plain"][0],
                },
            )
    value = results.median(NAME, FANOUT, "streams x plain")
    results.at_most(NAME, "time to accept streams, times that of plain requests", value, 1.15)


def _open(server: Server, load: Load, number: int) -> float:
    return open_streams(server, load, number)


def _ask(server: Server, load: Load, number: int) -> float:
    answer = load.ask(f"request {number} {server.port} /plain")
    if answer["answered"] != number:
        raise BenchError(f"of {number} plain requests {answer['answered']} were answered")
    return float(answer["seconds"])
