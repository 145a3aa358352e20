"""``ssekit stats``: what is going on in a running server's hub, once, as text or JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ssekit.cli.common import hub_of, hub_option, printable
from ssekit.errors import SSEError

if TYPE_CHECKING:
    from ssekit.hub import Hub
    from ssekit.hub.stats import Histogram, Numbers, Stats

EPILOG = """\
The server is found by its hub's URL: all processes of this machine whose hub has the same URL, and
that have streams or subscriptions. Counters begin when the server does.

examples:
  ssekit stats
  ssekit stats --url redis://localhost/0 --json | jq .server.streams
"""


def options(parser: argparse.ArgumentParser) -> None:
    parser.description = "Print the numbers of a running server's hub."
    parser.epilog = EPILOG
    hub_option(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object, all numbers")


def run(arguments: argparse.Namespace) -> int:
    with hub_of(arguments) as hub:
        stats = stats_of_server(hub)
    print(json.dumps(as_json(stats)) if arguments.json else "\n".join(_lines(stats)))
    return 0


def stats_of_server(hub: Hub) -> Stats:
    """Return the numbers.  Raises `SSEError` if no process of a server has this hub."""
    # Before anything asks the log: a file that is not there must not be made.
    if not hub.counts.totals()[1]:
        raise SSEError(
            "no process on this machine has streams or subscriptions of this hub: start the server,"
            " or name its hub with --url or SSEKIT_URL"
        )
    return hub.stats()


def as_json(stats: Stats) -> dict[str, Any]:
    """Return the numbers as JSON has them; the process is not this command's, and left out."""
    found = asdict(stats)
    del found["process"]
    for numbers in (found["server"], *found["workers"].values()):
        numbers["iterated"] = numbers["streams"] - numbers["taken_over"]
    return found


def _lines(stats: Stats) -> Iterator[str]:
    server = stats.server
    yield f"workers      {len(stats.workers)}{_away(server)}"
    yield (
        f"streams      {server.streams:,} open: {server.taken_over:,} taken over"
        f" ({server.lagging:,} lagging), {server.iterated:,} iterated"
    )
    yield f"opened       {server.opened:,}{_by(server.ended, 'ended: ')}"
    yield f"rejected     {sum(server.rejected.values()):,}{_by(server.rejected)}"
    yield f"endpoints    {server.authorized:,} authorized, {server.unauthorized:,} refused"
    yield f"delivered    {server.events:,} events, {server.bytes:,} bytes"
    yield (
        f"published    {server.published:,}, refused {server.refused:,}, failed {server.failed:,}"
        f"{_typical(server.publish)}"
    )
    yield f"sent         {server.delay.count:,} entries{_typical(server.delay)} after storing"
    yield f"resets       {server.resets:,}"
    yield f"members      {server.members:,}"
    yield f"log          {stats.end or 'cannot be reached'}{_behind(server)}"
    yield f"outages      {server.outages:,}"
    yield f"in memory    {server.entries:,} entries, {server.entry_bytes:,} bytes"
    for channel, numbers in stats.channels.items():
        told = ", ".join(f"{count:,} {name}" for name, count in numbers.items())
        yield f"  {printable(channel)}: {told}"


def _by(counts: Mapping[str, int], text: str = "") -> str:
    told = ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)
    return f" ({text}{told})" if told else ""


def _away(server: Numbers) -> str:
    return f", of which {server.away} cannot reach the log" if server.away else ""


def _behind(server: Numbers) -> str:
    if not server.behind_events:
        return ""
    age = "" if server.behind_seconds is None else f" and {server.behind_seconds:.1f} s"
    return f"; the slowest worker is {server.behind_events:,} entries{age} behind"


def _typical(times: Histogram) -> str:
    return f", {times.sum / times.count * 1000:,.2f} ms on average" if times.count else ""
