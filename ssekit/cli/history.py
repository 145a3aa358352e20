"""``ssekit history``: print the last events of the hub's channels, or the state of their keys."""

from __future__ import annotations

import argparse

from ssekit.cli.common import hub_of, hub_option, misuse
from ssekit.cli.output import form_of, form_options

EPILOG = """\
The events are printed oldest first, as ssekit listen prints them. Events with a key are no part of
the history: the newest one of each key is the channel's state, which --state prints.

examples:
  ssekit history news
  ssekit history news sport --limit 10 --json
  ssekit history news --before 1760000000000-41
  ssekit history rates --state
"""


def options(parser: argparse.ArgumentParser) -> None:
    parser.description = "Print the last events of channels of the hub."
    parser.epilog = EPILOG
    parser.add_argument("channels", metavar="CHANNEL", nargs="+")
    parser.add_argument(
        "--limit", type=int, default=100, metavar="N", help="print at most N events (100)"
    )
    parser.add_argument("--before", metavar="ID", help="print the last events before this id")
    parser.add_argument(
        "--state", action="store_true", help="print the newest event of each key instead"
    )
    form_options(parser)
    hub_option(parser)


def run(arguments: argparse.Namespace) -> int:
    show = form_of(arguments)
    with hub_of(arguments) as hub:
        with misuse():
            if arguments.state:
                found = [event for name in arguments.channels for event in hub.state(name).values()]
            else:
                found = hub.history(
                    *arguments.channels, limit=arguments.limit, before=arguments.before
                )
        for event in found:
            show(event)
    return 0
