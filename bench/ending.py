"""SIGTERM with 10,000 streams open: how soon the server is gone, and who got a closing_retry.

A closing_retry is a ``retry:`` line and a clean end of the stream, for which the load looks.  What
is judged is the time without that in which the worker could have run and had no core, because
others had it.
"""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress

from bench.load import clients
from bench.measuring import Schedule, deliver, open_streams
from bench.processes import BenchError, processor_seconds
from bench.results import Results
from bench.servers import Server, fanout, gunicorn, portable
from bench.settings import Settings
from tests.servers import seconds_without_processor

NAME = "ending"
STREAMS = 10_000
GENERATORS, ITERATED, TICKS = "generators", "generators (iterated)", "@Stream.every"
LOOPS = (GENERATORS, ITERATED, TICKS)


def run(settings: Settings, results: Results) -> None:
    """End a server with one stream and one with many, by either way."""
    many = settings.scaled(STREAMS, 50)
    results.title(NAME, "from SIGTERM to the exit of gunicorn's master")
    rows = [
        ("ssekit", fanout, 1),
        ("ssekit", fanout, many),
        ("ssekit (portable)", portable, many),
        (GENERATORS, _loops("/seldom"), many),
        (ITERATED, _loops("/seldom", {"SSEKIT_FANOUT": "off"}), many),
        (TICKS, _loops("/seldom-tick"), many),
    ]
    for _ in range(settings.rounds):
        for name, start, streams in rows:
            with clients(settings.cores[1]) as load, start(settings.cores[0]) as server:
                open_streams(server, load, streams)
                if name not in LOOPS:
                    deliver(server, load, Schedule(3))
                load.reset()
                load.tell("ended 20")
                used = processor_seconds(server.pids) + _of_children()
                began = time.monotonic()
                server.process.send_signal(signal.SIGTERM)
                waited = _wait(server)
                seconds = time.monotonic() - began
                used = _of_children() - used
                report = load.answer()["0"]
            columns = {
                "seconds": seconds,
                "without a core": waited,
                "with one": seconds - waited,
                "of processor": used,
                "closing retries": report["closing_retries"],
                "ended cleanly": report["ended"],
                "cut": report["cut"] + report["open"],
            }
            results.put(NAME, f"{name}, {streams:,}", dict(columns))
    for name, _start, streams in rows[1:]:
        row = f"{name}, {streams:,}"
        seconds_of = results.median(NAME, row, "with one")
        results.at_most(NAME, f"{row}: seconds from SIGTERM to exit", seconds_of, 2)
        for column in ("closing retries", "ended cleanly"):
            results.at_least(NAME, f"{row}: {column}", results.median(NAME, row, column), streams)


def _wait(server: Server) -> float:
    """Wait for the server's exit; return how long its worker was ready to run and had no core."""
    before = waited = seconds_without_processor(server.worker)
    deadline = time.monotonic() + 60
    while server.process.poll() is None:
        if time.monotonic() > deadline:
            raise BenchError("the server does not end")
        with suppress(OSError):  # It has gone.
            waited = max(waited, seconds_without_processor(server.worker))
        time.sleep(0.01)
    return waited - before


def _of_children() -> float:
    """Return the processor seconds of all children that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _loops(
    path: str, env: Mapping[str, str] = {}
) -> Callable[[int], AbstractContextManager[Server]]:
    @contextmanager
    def start(core: int) -> Iterator[Server]:
        with gunicorn("bench.apps.loop_app:app", core, env) as server:
            server.path = path
            yield server

    return start
