"""``ssekit members``: print who is present in a channel of the hub."""

from __future__ import annotations

import argparse
import json

from ssekit.cli.common import hub_of, hub_option, misuse, printable

EPILOG = """\
A line for each member: the id, and the value as JSON where it has one. --json prints one object.

examples:
  ssekit members room
  ssekit members room --json | jq length
"""


def options(parser: argparse.ArgumentParser) -> None:
    parser.description = "Print who is present in a channel of the hub."
    parser.epilog = EPILOG
    parser.add_argument("channel", metavar="CHANNEL")
    parser.add_argument("--json", action="store_true", help="print one JSON object, by id")
    hub_option(parser)


def run(arguments: argparse.Namespace) -> int:
    with hub_of(arguments) as hub, misuse():
        members = hub.members(arguments.channel)
    if arguments.json:
        print(json.dumps(members))
        return 0
    for member, value in members.items():
        shown = "" if value is None else "  " + json.dumps(value, ensure_ascii=False)
        print(printable(member + shown))
    return 0
