"""Transactions that publish in PostgreSQL, beside bare ones, and how soon a viewer has the event.

A bare transaction is an INSERT with its commit, from eight connections of pgbench.  Others add a
second INSERT, an event, or a NOTIFY, which PostgreSQL lets only one transaction at a time commit.
The server of the viewer follows the log meanwhile, and gives the events their places.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from statistics import median
from typing import Any

from bench import servers
from bench.processes import BenchError
from bench.results import Results
from bench.settings import Settings

NAME = "transactions"
CONNECTIONS = 8
SECONDS = 5.0
COUNT = 200
DATA = "x" * 200
INSERT = f"INSERT INTO bare (body) VALUES ('{DATA}')"
EVENT = (
    "SELECT ssekit.enqueue('{identity}', 3600, convert_to('herd', 'UTF8'),"
    f" convert_to('data: {DATA}' || chr(10), 'UTF8'), NULL, false)"
)
WAYS = {"bare": "", "two INSERTs": INSERT, "an event": EVENT, "a NOTIFY": "NOTIFY bench"}


def run(settings: Settings, results: Results) -> None:
    """Measure each kind of transaction in each round, and the ways to a viewer."""
    from tests.postgres_server import PostgresServer, is_installed, programs

    if not is_installed():
        raise BenchError("postgresql is not installed")
    results.title(
        NAME, "PostgreSQL: transactions that publish, and how soon a viewer has the event"
    )
    seconds, count = max(0.3, SECONDS * settings.scale), settings.scaled(COUNT, 5)
    with PostgresServer(durable=True) as server:
        for _ in range(settings.rounds):
            url = server.new_database()
            with _viewer(settings, url) as arrival:
                results.put(NAME, "commit to viewer, median", delays(url, arrival, count))
            with _viewer(settings, url):
                pgbench = [str(programs() / "pgbench"), url]
                row = f"transactions a second, {CONNECTIONS} connections"
                results.put(NAME, row, rates(pgbench, seconds))
    for way, limit in (("publish", 5), ("session's commit", 5), ("unseen commit", 25)):
        value = results.median(NAME, "commit to viewer, median", f"{way}: ms")
        results.at_most(NAME, f"{way} to viewer, ms at the median", value, limit)


def rates(pgbench: list[str], seconds: float) -> dict[str, float | None]:
    """Return the transactions of each way in a second, and their ratios to bare ones."""
    import psycopg

    program, url = pgbench
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS bare (id bigserial PRIMARY KEY, body text)")
        (identity,) = connection.execute("SELECT ssekit.identity()").fetchone() or ("",)
    found = {}
    for way, statement in WAYS.items():
        script = f"BEGIN;\n{INSERT};\n{statement.format(identity=identity)};\nCOMMIT;\n"
        found[way] = _rate([program, url], script.replace("\n;\n", "\n"), seconds)
    return {
        **found,
        "event / INSERT": found["an event"] / found["two INSERTs"],
        "NOTIFY / INSERT": found["a NOTIFY"] / found["two INSERTs"],
    }


def _rate(pgbench: list[str], script: str, seconds: float) -> float:
    program, url = pgbench
    read, write = os.pipe()
    os.write(write, script.encode())
    os.close(write)
    command = [program, "--no-vacuum", "--protocol=prepared", f"--client={CONNECTIONS}"]
    command += [f"--time={max(1, round(seconds))}", f"--file=/dev/fd/{read}", url]
    ran = subprocess.run(command, pass_fds=[read], capture_output=True, text=True, check=False)
    os.close(read)
    tps = re.search(r"tps = ([\d.]+)", ran.stdout)
    if tps is None:
        raise BenchError(f"pgbench: {ran.stderr}")
    return float(tps[1])


def delays(url: str, arrival: Callable[[str], float], count: int) -> dict[str, float | None]:
    """Return the median ms from each kind of commit to the viewer."""
    import psycopg
    import sqlalchemy
    from sqlalchemy.orm import Session

    from ssekit import Hub

    engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with Hub(url) as hub, Session(engine) as session, psycopg.connect(url) as connection:

        def commit(owner: Any, data: str) -> None:
            hub.publish("herd", data, connection=owner)
            owner.commit()

        def measure(publish: Callable[[str], object]) -> float:
            taken = []
            for n in range(count):
                # At no fixed time between two looks at the outbox.
                time.sleep(0.05 + n % 7 * 0.0043)
                publish(data := f"event {n} {time.monotonic_ns()}")
                committed = time.perf_counter()
                taken.append(arrival(data) - committed)
            return median(taken) * 1000

        found: dict[str, float | None] = {
            "publish: ms": measure(lambda data: hub.publish("herd", data)),
            "session's commit: ms": measure(partial(commit, session)),
            "unseen commit: ms": measure(partial(commit, connection)),
        }
    engine.dispose()
    return found


@contextmanager
def _viewer(settings: Settings, url: str) -> Iterator[Callable[[str], float]]:
    """Run a server with one viewer; yields what waits for an event and returns when it came."""
    with ExitStack() as stack:
        server = stack.enter_context(
            servers.gunicorn("bench.apps.herd_app:app", settings.cores[0], {"HERD_HUB": url})
        )
        address = ("127.0.0.1", server.port)
        viewer = stack.enter_context(socket.create_connection(address, timeout=30))
        viewer.sendall(b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        received = b""

        def arrival(data: str) -> float:
            nonlocal received
            while data.encode() not in received:
                piece = viewer.recv(65536)
                if not piece:
                    raise BenchError("the viewer's stream has ended")
                received = received[-65536:] + piece
            return time.perf_counter()

        arrival("stream-open")
        yield arrival
