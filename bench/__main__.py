"""The command: ``scripts/bench BENCH...``; see ``scripts/bench --help``."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

from bench import logs, picture
from bench.processes import BenchError, raise_descriptor_limit
from bench.results import Results
from bench.settings import Settings
from bench.subjects import EVERY
from bench.table import table

BENCHES = {
    "fanout": "what a delivery costs: C loop, generator and queue, ssekit, and the peers",
    "metrics": "what counting, and a scrape every 15 seconds, add to a delivery",
    "iterated": "what a delivery costs where no connection can be taken over",
    "loop": "a loop or a timer for each client, beside a generator by hand",
    "latency": "from publish to arrival at a fixed 45,000 deliveries a second",
    "memory": "what an idle subscriber costs the server in memory",
    "accept": "10,000 streams opened, beside 10,000 plain requests",
    "access": "streams for those who have a ticket, and 10,000 members",
    "growth": "500 and 15,000 subscribers, ten among 15,000 others, and idle ones",
    "channels": "a publish in a log of 100,000 channels with a few events each",
    "slow-readers": "1,000 readers that stop reading, and read again",
    "slowly": "2,000 readers that read slowly while events go on",
    "herd": "viewers that all come back at once, with events missed",
    "publish": "events a second and the time of one, beside the bare thing of each log",
    "transactions": "PostgreSQL's that publish, and how soon a viewer has the event",
    "followers": "one redis and hundreds of workers that follow it",
    "balance": "how evenly four workers share the streams",
    "churn": "100,000 connects and closes: descriptors and memory",
    "ending": "SIGTERM with 10,000 streams",
    "cgi-start": "a CGI script's first event, beside a bare Python script's",
    "tabs": "no loss and no duplicate in eight tabs that close, crash, freeze and block",
    "chaos": "no loss and no duplicate while servers and brokers are killed",
}


def main(arguments: list[str]) -> int:
    """Run the benches that are named; returns 1 if a target was missed, 2 if one could not run."""
    options = _parser().parse_args(arguments)
    raise_descriptor_limit()
    # Before a core is chosen for each side, and so that this process stays off the server's.
    settings = Settings(
        rounds=options.rounds or (1 if options.quick else 3),
        scale=options.scale or (0.05 if options.quick else 1.0),
        only=options.only or frozenset(),
    )
    os.sched_setaffinity(0, {settings.cores[1]})
    results = Results()
    failed = False
    for bench in list(BENCHES) if "all" in options.bench else options.bench:
        failed |= not _run(bench, settings, results)
    if options.json:
        text = json.dumps(results.as_json(_machine(settings)), indent=1, ensure_ascii=False)
        options.json.write_text(text + "\n")
    if options.picture:
        picture.write(results, options.picture)
    return 2 if failed else int(not all(target.met for target in results.targets))


def _run(bench: str, settings: Settings, results: Results) -> bool:
    module = f"bench.{bench.replace('-', '_')}"
    if importlib.util.find_spec(module) is None:
        print(f"{bench}: not there\n")
        return True
    began = time.monotonic()
    try:
        importlib.import_module(module).run(settings, results)
    except (BenchError, OSError) as error:
        print(f"{bench}: {error}", file=sys.stderr)
        return False
    if settings.scale < 1:
        results.note(bench, "a quick look: smaller sizes than the targets are meant for")
    results.note(bench, f"took {time.monotonic() - began:.0f} s, {settings.rounds} rounds")
    print(table(results, bench), flush=True)
    return True


def _machine(settings: Settings) -> dict[str, Any]:
    cpu = Path("/proc/cpuinfo").read_text().partition("model name\t: ")[2].partition("\n")[0]
    return {
        "processor": cpu,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "rounds": settings.rounds,
        "scale": settings.scale,
    }


def _subjects(text: str) -> frozenset[str]:
    names = frozenset(text.split(","))
    unknown = names - {subject.name for subject in EVERY} - set(logs.KINDS)
    if unknown:
        raise argparse.ArgumentTypeError(f"no such subject: {', '.join(sorted(unknown))}")
    return names


def _parser() -> argparse.ArgumentParser:
    listed = "\n".join(f"  {name:14}{text}" for name, text in BENCHES.items())
    subjects = "\n".join(f"  {subject.name:22}{subject.title}" for subject in EVERY)
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure ssekit on this machine: the server on one core, clients on another.",
        epilog=f"benches:\n{listed}\n  all           all of them (about half an hour)\n\n"
        f"subjects:\n{subjects}\n\n"
        "It exits with 1 if a target was missed, with 2 if a bench could not run.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bench", nargs="+", choices=[*BENCHES, "all"], metavar="BENCH")
    parser.add_argument("--quick", action="store_true", help="a look, with small sizes, one round")
    parser.add_argument("--rounds", type=int, help="how often each measure is taken (3)")
    parser.add_argument("--scale", type=float, help="sizes as a part of the full ones (1.0)")
    parser.add_argument(
        "--only",
        type=_subjects,
        metavar="A,B",
        help="the subjects to measure beside the C loop, or the kinds of logs",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to a file")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the figures as SVG")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
