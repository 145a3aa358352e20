"""Transactions that publish in PostgreSQL, beside bare ones, and how soon a viewer has the event.

A bare transaction is an INSERT with its commit, from eight connections of pgbench.  Others add a
second INSERT, an event, or a NOTIFY, which PostgreSQL lets only one transaction at a time commit:
as many as there can be, and the time of one at a fixed rate.  The server of the viewer follows the
log meanwhile, and gives the events their places with the same processor.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import threading
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
RATE = 500
"""Transactions a second where the time of one is measured."""
COUNT = 200
DATA = "x" * 200
INSERT = f"INSERT INTO bare (body) VALUES ('{DATA}')"
EVENT = (
    "SELECT ssekit.enqueue('{identity}', 3600, convert_to('herd', 'UTF8'),"
    f" convert_to('data: {DATA}' || chr(10), 'UTF8'), NULL, false)"
)
WAYS = {
    "an INSERT": [INSERT],
    "two INSERTs": [INSERT, INSERT],
    "an INSERT and an event": [INSERT, EVENT],
    "an INSERT and a NOTIFY": [INSERT, "NOTIFY bench"],
}


def run(settings: Settings, results: Results) -> None:
    """Measure each kind of transaction in each round, and the ways to a viewer."""
    from tests.postgres_server import PostgresServer, is_installed

    if not is_installed():
        raise BenchError("postgresql is not installed")
    results.title(
        NAME, "PostgreSQL: transactions that publish, and how soon a viewer has the event"
    )
    seconds, count = max(0.3, SECONDS * settings.scale), settings.scaled(COUNT, 5)
    # All share all cores: a database is not where the viewers' server is.
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    with PostgresServer(durable=True) as server:
        for _ in range(settings.rounds):
            url = server.new_database()
            with _viewer(settings, url) as arrival:
                results.put(NAME, "commit to viewer, median", delays(url, arrival, count))
            with _viewer(settings, url):
                for way, columns in transactions(url, seconds).items():
                    results.put(NAME, f"a transaction with {way}", columns)
    for way, limit in (("publish", 5), ("session's commit", 5), ("unseen commit", 25)):
        value = results.median(NAME, "commit to viewer, median", f"{way}: ms")
        results.at_most(NAME, f"{way} to viewer, ms at the median", value, limit)


def transactions(url: str, seconds: float) -> dict[str, dict[str, float | None]]:
    """Return for each way how many transactions there are in a second, and the ms of one."""
    import psycopg

    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS bare (id bigserial PRIMARY KEY, body text)")
        (identity,) = connection.execute("SELECT ssekit.identity()").fetchone() or ("",)
    found: dict[str, dict[str, float | None]] = {}
    with _listener(url):
        for way, statements in WAYS.items():
            found[way] = _measured(url, statements, str(identity), seconds)
    return found


@contextmanager
def _listener(url: str) -> Iterator[None]:
    """Have somebody to be notified, without whom a NOTIFY costs nothing."""
    import psycopg

    over = threading.Event()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("LISTEN bench")

        def listen() -> None:
            while not over.is_set():
                for _ in connection.notifies(timeout=0.2):
                    pass

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _measured(
    url: str, statements: list[str], identity: str, seconds: float
) -> dict[str, float | None]:
    script = ";\n".join(["BEGIN", *statements, "COMMIT", ""]).replace("{identity}", identity)
    said = _pgbench(url, script, seconds)
    at_rate = _pgbench(url, script, seconds, f"--rate={RATE}")
    return {
        "a second": _figure(r"tps = ([\d.]+)", said),
        f"at {RATE} a second: ms": _figure(r"latency average = ([\d.]+)", at_rate)
        - _figure(r"schedule lag: avg ([\d.]+)", at_rate),
    }


def _pgbench(url: str, script: str, seconds: float, *options: str) -> str:
    from tests.postgres_server import programs

    read, write = os.pipe()
    os.write(write, script.encode())
    os.close(write)
    command = [str(programs() / "pgbench"), "--no-vacuum", "--protocol=prepared", *options]
    command += [f"--client={CONNECTIONS}", f"--time={max(1, round(seconds))}"]
    command += [f"--file=/dev/fd/{read}", url]
    ran = subprocess.run(command, pass_fds=[read], capture_output=True, text=True, check=False)
    os.close(read)
    if ran.returncode:
        raise BenchError(f"pgbench: {ran.stderr}")
    return ran.stdout


def _figure(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    if found is None:
        raise BenchError(f"pgbench did not say {pattern}: {text}")
    return float(found[1])


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
