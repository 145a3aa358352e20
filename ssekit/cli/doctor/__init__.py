"""``ssekit doctor URL``: connect as a browser would, and report what would hurt a stream's users.

Looking and judging are separate: `ssekit.cli.doctor.probing` makes requests and returns what it saw
as one frozen value, and `ssekit.cli.doctor.checks` is a table of pure functions of that value.
This module is the command: options in, a report out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
import textwrap
import time
from typing import TextIO

from ssekit.cli.common import Usage, printable
from ssekit.cli.doctor.checks import CHECKS, blame, judge, path, untested
from ssekit.cli.doctor.finding import Finding, hurts
from ssekit.cli.doctor.http import Manner
from ssekit.cli.doctor.probing import Plan, examine
from ssekit.cli.doctor.reaching import check_url
from ssekit.cli.doctor.seen import Seen

__all__ = ["CHECKS", "Finding", "Plan", "Seen", "examine", "judge", "options", "run"]

EPILOG = """\
The report lists findings, the most harmful first. The exit code is 1 if one of them hurts the
stream's users, and 0 if there is nothing but advice.
It makes some GETs of the stream, one HEAD, one POST without a body (--no-post leaves it out)
and, with --origin, one OPTIONS. Where ssekit's probe stands beside the stream (the address
"probe", or --probe), delays are measured by the server's own clock.

examples:
  ssekit doctor https://www.example.org/events
  ssekit doctor https://www.example.org/events --upstream http://127.0.0.1:8000/events
  ssekit doctor https://api.example.org/events --origin https://www.example.org
  ssekit doctor https://www.example.org/events --seconds 140      also finds idle cuts
"""


def options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to ``parser``."""
    parser.description = "Examine a stream as a browser would get it."
    parser.epilog = EPILOG
    add = parser.add_argument
    add("address", metavar="URL", help="the stream")
    add("--upstream", default="", metavar="URL", help="the same stream without the proxy")
    add("--origin", default="", help="the origin of a page that reads it, such as https://a.org")
    add(
        "--header",
        action="append",
        default=[],
        metavar="NAME:VALUE",
        help="send it with each request; repeatable",
    )
    add("--seconds", type=float, default=40.0, help="time limit for the whole (default 40)")
    add("--heartbeat", type=float, default=30.0, help="seconds of silence allowed (default 30)")
    add("--probe", default="", metavar="URL", help="ssekit's probe (default: beside the stream)")
    add("--ignore", default="", metavar="NAMES", help="names of findings to leave out")
    add("--insecure", action="store_true", help="accept any certificate")
    add("--no-post", dest="post", action="store_false", help="do not send a POST")
    add("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Examine, print the report, and return 1 if a finding hurts, 0 if there is advice at most.

    Raises `Usage` for options that make no sense.
    """
    plan = _plan(arguments)
    progress = Progress(sys.stderr)
    manner = Manner(_headers(arguments.header), arguments.insecure, progress.beat)
    began = time.monotonic()
    try:
        seen = examine(plan, manner, progress.step)
    finally:
        progress.done()  # also at Ctrl-C: the shell's prompt would follow it on the line
    ignored = set(arguments.ignore.replace(",", " ").split())
    findings = [finding for finding in judge(seen) if finding.name not in ignored]
    seconds = time.monotonic() - began
    report = _json if arguments.json else _text
    print(printable(report(seen, findings, seconds)))
    return 1 if hurts(findings) else 0


def _plan(arguments: argparse.Namespace) -> Plan:
    for name in ("seconds", "heartbeat"):
        if not 0 < getattr(arguments, name) < math.inf:
            raise Usage(f"--{name} needs seconds above 0")
    try:
        for url in filter(None, [arguments.address, arguments.upstream, arguments.probe]):
            check_url(url)
    except ValueError as error:
        raise Usage(str(error)) from error
    if not printable(arguments.origin).isascii() or " " in arguments.origin:
        raise Usage(f"{arguments.origin!r} is not an origin such as https://www.example.org")
    return Plan(
        arguments.address,
        arguments.seconds,
        arguments.heartbeat,
        arguments.origin.rstrip("/"),
        arguments.upstream,
        arguments.probe,
        arguments.post,
    )


def _headers(given: list[str]) -> tuple[tuple[str, str], ...]:
    headers = []
    for text in given:
        name, colon, value = text.partition(":")
        if not colon or not name.strip() or not text.isprintable():
            raise Usage(f"{text!r:.80} is not NAME:VALUE")
        headers.append((name.strip(), value.strip()))
    return tuple(headers)


class Progress:
    """Shows on a terminal, or in a log, what the doctor is doing and for how long."""

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self._terminal = output.isatty()
        self._began = time.monotonic()
        self._what = ""
        self._width = 0

    def step(self, what: str) -> None:
        """Show the current step."""
        self._what = printable(what)
        if self._terminal:
            self.beat()
        else:
            self._output.write(f"ssekit doctor: {self._what}\n")
            self._output.flush()

    def beat(self) -> None:
        """Update the line."""
        if self._terminal and self._what:
            text = f"{time.monotonic() - self._began:4.0f} s  {self._what}"[:100]
            self._output.write(f"\r{text:{self._width}}")
            self._output.flush()
            self._width = len(text)

    def done(self) -> None:
        """Clear the line."""
        if self._terminal:
            self._output.write(f"\r{'':{self._width}}\r")
            self._output.flush()


def _text(seen: Seen, findings: list[Finding], seconds: float) -> str:
    count = len(findings)
    found = "nothing wrong" if not count else f"{count} finding{'s' if count > 1 else ''}"
    if findings and not hurts(findings):
        found += ", advice only,"
    lines = [f"{seen.url}: {found} in {seconds:.0f} s"]
    blamed = blame(seen)
    for number, finding in enumerate(findings, 1):
        where = f" ({finding.hop})" if finding.hop else ""
        if finding.name in blamed:
            where += f", {blamed[finding.name]}"
        where += " - advice" if finding.is_advice else ""
        lines += ["", f"{number}. {finding.name}{where}"]
        for label in ("seen", "why", "change"):
            lines.append(_wrapped(f"   {label:7}", getattr(finding, label)))
    shown = [f"{hop.name} ({hop.sign})" for hop in path(seen)]
    if shown:
        lines += ["", _wrapped("Recognized: ", ", ".join(shown))]
    notes = untested(seen)
    if notes:
        lines += ["", "Not tested:", *(_wrapped("  - ", note) for note in notes)]
    return "\n".join(lines)


def _wrapped(label: str, text: str) -> str:
    return textwrap.fill(
        text, 100, initial_indent=label, subsequent_indent=" " * len(label), break_on_hyphens=False
    )


def _json(seen: Seen, findings: list[Finding], seconds: float) -> str:
    blamed = blame(seen)
    report = {
        "url": seen.url,
        "healthy": not hurts(findings),
        "seconds": round(seconds, 1),
        "findings": [
            dataclasses.asdict(finding)
            | {"advice": finding.is_advice, "where": blamed.get(finding.name, "")}
            for finding in findings
        ],
        "hops": [dataclasses.asdict(hop) for hop in path(seen)],
        "delay": seen.probe.delay if seen.probe else None,
        "untested": untested(seen),
    }
    return json.dumps(report, indent=2)
