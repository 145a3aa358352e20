"""SIGTERM with 10,000 streams open: how soon the server is gone, and who got a closing_retry.

A closing_retry is a ``retry:`` line and a clean end of the stream, for which the load looks.
"""

from __future__ import annotations

import signal
import time

from bench.load import clients
from bench.measuring import Schedule, deliver, open_streams
from bench.results import Results
from bench.servers import fanout, portable
from bench.settings import Settings

NAME = "ending"
STREAMS = 10_000


def run(settings: Settings, results: Results) -> None:
    """End a server with one stream and one with many, by either way."""
    many = settings.scaled(STREAMS, 50)
    results.title(NAME, "from SIGTERM to the exit of gunicorn's master")
    rows = [("ssekit", fanout, 1), ("ssekit", fanout, many), ("ssekit (portable)", portable, many)]
    for _ in range(settings.rounds):
        for name, start, streams in rows:
            with clients(settings.cores[1]) as load, start(settings.cores[0]) as server:
                open_streams(server, load, streams)
                deliver(server, load, Schedule(3))
                load.reset()
                load.tell("ended 20")
                began = time.monotonic()
                server.process.send_signal(signal.SIGTERM)
                server.process.wait(60)
                seconds = time.monotonic() - began
                report = load.answer()["0"]
            columns = {
                "seconds": seconds,
                "farewells": report["farewells"],
                "ended cleanly": report["ended"],
                "cut": report["cut"] + report["open"],
            }
            results.put(NAME, f"{name}, {streams:,}", dict(columns))
    row = f"ssekit, {many:,}"
    seconds_of = results.median(NAME, row, "seconds")
    results.at_most(NAME, f"seconds from SIGTERM to exit with {many:,} streams", seconds_of, 2)
    for column in ("farewells", "ended cleanly"):
        results.at_least(
            NAME, f"of {many:,} streams: {column}", results.median(NAME, row, column), many
        )
