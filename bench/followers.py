"""Many followers of one redis, and whether its cost grows as the arithmetic of the docs says.

docs/many-machines.md counts what redis does for each worker and each event.  Here the workers are
simulated: a follower is a broker that reads the log, as a worker's hub does, but has no viewers.
What one event and one follower cost is measured with a few, and held against a run with many.

Each process of followers is this module too: ``python -m bench.followers URL COUNT``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from typing import Any

from bench.logs import new_log
from bench.processes import ROOT, BenchError, processor_seconds
from bench.results import Results
from bench.settings import Settings

NAME = "followers"
FEW, MANY = 50, 400
PROCESSES = 4
RATES = (1, 10, 100)
SECONDS = 10.0
BODY = b"data: " + b"x" * 200 + b"\n"


def run(settings: Settings, results: Results) -> None:
    """Publish at some rates to few and to many followers."""
    seconds = max(2.0, SECONDS * settings.scale)
    few, many = settings.scaled(FEW, 8), settings.scaled(MANY, 40)
    results.title(NAME, "what one redis does for each worker that follows it")
    try:
        import redis  # noqa: F401
    except ImportError:
        raise BenchError("needs the redis package: pip install 'ssekit[redis]'") from None
    for _ in range(settings.rounds):
        for rate in RATES:
            costs = {number: _costs(number, rate, seconds) for number in (few, many)}
            for number, cost in costs.items():
                results.put(NAME, f"{number} followers, {rate} events a second", cost)
            each = (_used(costs[many]) - _used(costs[few])) / (many - few)
            fixed = _used(costs[few]) - each * few
            results.put(
                NAME,
                f"{rate} events a second",
                {"redis: µs an event and follower": each, "redis: µs an event": fixed},
            )
    for rate in RATES:
        row = f"{many} followers, {rate} events a second"
        behind = results.median(NAME, row, "p99: ms")
        results.at_most(NAME, f"{row}: ms until all have it, p99", behind, 250)


def _used(cost: dict[str, float | None]) -> float:
    return float(cost["redis: µs an event, in all"] or 0.0)


def _costs(number: int, rate: int, seconds: float) -> dict[str, float | None]:
    import redis

    from ssekit.brokers import connect

    processes = min(PROCESSES, number)
    with ExitStack() as stack:
        url = stack.enter_context(new_log("redis")).url
        broker = connect(url)
        stack.callback(broker.close)
        broker.append("news", BODY)
        shares = [number // processes + (n < number % processes) for n in range(processes)]
        children = [stack.enter_context(_child(url, share)) for share in shares]
        for child in children:
            assert child.stdout
            child.stdout.readline()
        time.sleep(0.5)  # The last ones have begun to wait.
        server = redis.Redis.from_url(url.partition("?")[0])
        stack.callback(server.close)
        before: Any = server.info()
        used = processor_seconds([before["process_id"]])
        events = max(5, round(rate * seconds))
        began = time.monotonic()
        for sequence in range(events):
            time.sleep(max(0.0, began + sequence / rate - time.monotonic()))
            broker.append("news", b"data: %.6f %s\n" % (time.time(), b"x" * 180))
        time.sleep(1.0)
        used = processor_seconds([before["process_id"]]) - used
        after: Any = server.info()
        found = [json.loads(child.communicate("")[0]) for child in children]
    arrived = sum(one["events"] for one in found)
    if arrived < events * number:
        raise BenchError(f"of {events * number} events {arrived} arrived")
    sent = after["total_net_output_bytes"] - before["total_net_output_bytes"]
    return {
        "redis: µs an event, in all": used / events * 1e6,
        "redis: bytes an event and follower": sent / events / number,
        "redis: % of a core": used / (time.monotonic() - began) * 100,
        "p99: ms": max(one["p99"] for one in found) * 1e3,
    }


def _child(url: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench.followers", url, str(count)]
    return subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _follow(url: str, count: int) -> None:
    """Follow with so many brokers until standard input ends, and say what has arrived."""
    from ssekit.brokers import connect
    from ssekit.errors import HubClosed

    delays: list[float] = []
    brokers = [connect(url) for _ in range(count)]
    cursors = [broker.tip() for broker in brokers]

    def follow(number: int) -> None:
        cursor = cursors[number]
        try:
            while True:
                entries, cursor = brokers[number].follow(cursor, 30.0)
                now = time.time()
                delays.extend(now - float(entry.body.split()[1]) for entry in entries)
        except HubClosed:
            pass

    threads = [threading.Thread(target=follow, args=[number]) for number in range(count)]
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    sys.stdin.read()
    for broker in brokers:
        broker.close()
    for thread in threads:
        thread.join()
    delays.sort()
    p99 = delays[int(len(delays) * 0.99)] if delays else 0.0
    print(json.dumps({"events": len(delays), "p99": p99}), flush=True)


if __name__ == "__main__":
    _follow(sys.argv[1], int(sys.argv[2]))
