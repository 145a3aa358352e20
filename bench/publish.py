"""Publishing: events a second and the time of one, beside the bare thing of each log.

The bare thing stores the same bytes with the least that a program can do: an INSERT with its commit
(in WAL with sqlite), an XADD in a pipeline of one.  Each publisher is a process of its own, which
this module is too: ``python -m bench.publish bare|hub BROKER URL SECONDS``.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from statistics import median
from urllib.parse import urlsplit

from bench import servers
from bench.herd import get
from bench.load import clients
from bench.logs import measure_each, new_log
from bench.processes import ROOT
from bench.results import Results
from bench.settings import Settings

NAME = "publish"
DATA = "x" * 200
BODY = b"data: " + DATA.encode() + b"\n"
SECONDS = 3.0
PROCESSES = 8
VIEWERS = 10_000
Store = Callable[[], object]


def run(settings: Settings, results: Results) -> None:
    """Measure each broker from one process and from eight, and with many viewers."""
    seconds = max(0.3, SECONDS * settings.scale)
    results.title(NAME, "what a publish costs, beside the bare thing")
    for _ in range(settings.rounds):
        measure_each(
            settings, results, NAME, lambda broker: _measure(settings, results, broker, seconds)
        )
    for broker in BARE:
        value = results.median(NAME, f"{broker}, one process", "x bare")
        results.at_most(NAME, f"{broker}: the time of a publish, times the bare one", value, 1.5)


def _measure(settings: Settings, results: Results, broker: str, seconds: float) -> None:
    with ExitStack() as stack:
        if broker != "memory":
            for number, name in ((1, "one process"), (PROCESSES, f"{PROCESSES} processes")):
                url, own = (
                    stack.enter_context(new_log(broker, durable=True)).url for _ in range(2)
                )
                bare, bare_rate = _from(number, "bare", broker, own, seconds)
                ours, rate = _from(number, "hub", broker, url, seconds)
                results.put(
                    NAME,
                    f"{broker}, {name}",
                    {
                        "a second": rate,
                        "µs each": ours,
                        "bare: a second": bare_rate,
                        "bare: µs each": bare,
                        "x bare": ours / bare,
                    },
                )
    _with_viewers(settings, results, broker)


def _with_viewers(settings: Settings, results: Results, broker: str) -> None:
    """Publish in a process that has many viewers of the channel."""
    viewers, count = settings.scaled(VIEWERS, 50), settings.scaled(200, 20)
    with (
        new_log(broker) as log,
        clients(settings.cores[1]) as load,
        servers.gunicorn(
            "bench.apps.herd_app:app", settings.cores[0], {"HERD_HUB": log.url}
        ) as server,
    ):
        alone = float(get(server, f"/publishing?count={count}"))
        load.open(viewers, server.port, "/events")
        among = float(get(server, f"/publishing?count={count}"))
    row = f"{broker}, with {viewers:,} viewers in the process"
    results.put(NAME, row, {"µs each": among, "without viewers: µs each": alone})


def _from(number: int, what: str, broker: str, url: str, seconds: float) -> tuple[float, float]:
    """Publish from some processes at once: the median µs of one, and how many a second in all."""
    command = [sys.executable, "-m", "bench.publish", what, broker, url, str(seconds)]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
            for _ in range(number)
        ]
        for process in processes:
            assert process.stdout
            process.stdout.readline()  # It has stored one, and is ready.
        found = [json.loads(process.communicate("go\n")[0]) for process in _told(processes)]
    return median(one["median"] for one in found) * 1e6, sum(one["rate"] for one in found)


def _told(processes: list[subprocess.Popen[str]]) -> list[subprocess.Popen[str]]:
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    return processes


def _hub(url: str) -> Store:
    from ssekit import Hub

    hub = Hub(url)
    return lambda: hub.publish("news", DATA)


def _bare_sqlite(url: str) -> Store:
    db = sqlite3.connect(urlsplit(url).path[1:], timeout=30, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute("CREATE TABLE IF NOT EXISTS bare (id INTEGER PRIMARY KEY, body BLOB)")

    def store() -> None:
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO bare (body) VALUES (?)", (BODY,))
        db.execute("COMMIT")

    return store


def _bare_redis(url: str) -> Store:
    import redis

    client = redis.Redis.from_url(url.partition("?")[0])

    def store() -> None:
        with client.pipeline(transaction=False) as pipeline:
            pipeline.xadd("bare", {"channel": "news", "body": BODY})
            pipeline.execute()

    return store


def _bare_postgresql(url: str) -> Store:
    import psycopg

    connection = psycopg.connect(url)
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(1)")
        connection.execute("CREATE TABLE IF NOT EXISTS bare (id bigserial PRIMARY KEY, body bytea)")

    def store() -> None:
        connection.execute("INSERT INTO bare (body) VALUES (%s)", (BODY,))
        connection.commit()

    return store


BARE = {"sqlite": _bare_sqlite, "redis": _bare_redis, "postgresql": _bare_postgresql}


def _publisher(what: str, broker: str, url: str, seconds: float) -> None:
    """Store for some seconds, once it is told to, and say how many a second and how soon one is."""
    store = _hub(url) if what == "hub" else BARE[broker](url)
    store()
    print("ready", flush=True)
    sys.stdin.readline()
    taken: list[float] = []
    began = now = time.perf_counter()
    while now - began < seconds:
        store()
        taken.append(time.perf_counter() - now)
        now += taken[-1]
    print(json.dumps({"median": median(taken), "rate": len(taken) / (now - began)}), flush=True)


if __name__ == "__main__":
    _publisher(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]))
