"""100,000 connects and closes in random order: the worker must end as it began.

Clients leave in all ways: they close, they reset the connection, and some do so before their head
has come.  Descriptors are counted and memory is weighed (PSS) after a warm-up of the same kind and
at the end, when all have left.
"""

from __future__ import annotations

from bench.load import Load, clients
from bench.measuring import open_streams
from bench.processes import BenchError, descriptors, proportional_set_size, until
from bench.results import Results
from bench.servers import Server, fanout, portable
from bench.settings import Settings

NAME = "churn"
TOTAL, ALIVE = 100_000, 1000


def run(settings: Settings, results: Results) -> None:
    """Churn once with the fan-out, and a tenth as much without."""
    total, alive = settings.scaled(TOTAL, 500), settings.scaled(ALIVE, 50)
    results.title(NAME, f"{total:,} connects and closes, up to {alive:,} at a time")
    for row, start, part in (("ssekit", fanout, 1), ("ssekit (portable)", portable, 10)):
        with clients(settings.cores[1]) as load, start(settings.cores[0]) as server:
            open_streams(server, load, 1)  # One stays, so that what serves all does.
            _churn(server, load, max(total // 20, alive * 2), alive)
            files, memory = _settled(server, None), proportional_set_size(server.worker)
            seconds = _churn(server, load, total // part, alive)
            after = _settled(server, files)
            grown = proportional_set_size(server.worker) / memory
            columns = {
                "connects": total // part,
                "seconds": seconds,
                "descriptors before": files,
                "after": after,
                "memory before, MB": memory / 1024**2,
                "times after": grown,
            }
            results.put(NAME, row, dict(columns))
    leaked = (
        results.median(NAME, "ssekit", "after"),
        results.median(NAME, "ssekit", "descriptors before"),
    )
    if leaked[0] is not None and leaked[1] is not None:
        results.at_most(NAME, "descriptors leaked", leaked[0] - leaked[1], 0)
    memory_after = results.median(NAME, "ssekit", "times after")
    results.at_most(NAME, "memory after, times before", memory_after, 1.05)


def _churn(server: Server, load: Load, total: int, alive: int) -> float:
    answer = load.ask(f"churn {total} {alive} {server.port} {server.path}")
    if answer["left"]:
        raise BenchError(f"the churn did not end in time: {answer}")
    return float(answer["seconds"])


def _settled(server: Server, wanted: int | None) -> int:
    """Return the worker's descriptors, when they are as many as wanted, or no longer change."""
    seen: list[int] = []

    def steady() -> bool:
        seen.append(descriptors(server.worker))
        return seen[-1] == wanted or (len(seen) > 300 and len(set(seen[-300:])) == 1)

    until(steady, 30, "the worker's descriptors to settle")
    return seen[-1]
