"""``ssekit publish``: publish events from the command line, and print the id of each.

It writes to the broker directly, without a server.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ssekit.cli.common import Usage, hub_of, hub_option, misuse, say
from ssekit.errors import BrokerUnavailable, ChannelFinished, InvalidEvent

if TYPE_CHECKING:
    from ssekit.hub import Hub

EPILOG = """\
Without DATA, each line of standard input becomes an event as soon as it arrives; bytes that are not
UTF-8 become U+FFFD. With - as DATA, all of standard input becomes one event. The id of each event
is printed on a line.

examples:
  ssekit publish news "hello, everybody"
  ssekit publish news '{"title": "hello"}' --json --event headline
  make 2>&1 | ssekit publish build --lines
  ssekit publish news - < article.txt
  ssekit publish rates 1.0842 --key EURUSD
  make 2>&1 | ssekit publish build --lines --finish

If a line cannot be published, the command that writes the lines is not stopped: the next lines are
still tried, and the exit code is 1 at the end.
"""


def options(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Publish an event, or each line of a program's output, on a channel of the hub."
    )
    parser.epilog = EPILOG
    parser.add_argument("channel", metavar="CHANNEL")
    parser.add_argument("data", metavar="DATA", nargs="?", help="the event's data, or -")
    parser.add_argument(
        "--lines", action="store_true", help="publish each line of standard input as it arrives"
    )
    parser.add_argument("--json", action="store_true", help="the data has to be JSON")
    parser.add_argument("--event", metavar="NAME", help="the event's type, for instance headline")
    parser.add_argument(
        "--retry", type=int, metavar="MS", help="how long clients wait before they reconnect"
    )
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument("--key", help="replace the channel's earlier event of this key")
    kept.add_argument(
        "--no-store",
        action="store_true",
        help="only for clients that are there now: it is not kept, and has no id",
    )
    parser.add_argument(
        "--finish",
        action="store_true",
        help="finish the channel afterwards; without DATA and --lines, do only that",
    )
    hub_option(parser)


def run(arguments: argparse.Namespace) -> int:
    if arguments.lines and arguments.data is not None:
        raise Usage("use either DATA or --lines")
    code = 0
    with hub_of(arguments) as hub:
        if arguments.data is not None:
            data = sys.stdin.buffer.read() if arguments.data == "-" else arguments.data
            _publish(hub, arguments, data)
        elif arguments.lines or not arguments.finish:
            code = _publish_lines(hub, arguments)
        if arguments.finish:
            _finish(hub, arguments.channel)
    return code


def _finish(hub: Hub, channel: str) -> None:
    with misuse():
        event = hub.finish(channel)
    if event is None:
        raise ChannelFinished(channel, hub.status(channel).reason)
    print(event.id, flush=True)


def _publish(hub: Hub, arguments: argparse.Namespace, text: str | bytes) -> None:
    data = _json(text) if arguments.json else text
    with misuse():
        event = hub.publish(
            arguments.channel,
            data,
            event=arguments.event,
            retry=arguments.retry,
            key=arguments.key,
            store=not arguments.no_store,
        )
    if event.id is not None:
        print(event.id, flush=True)


def _json(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidEvent(f"the data is not JSON: {error}") from error


def _publish_lines(hub: Hub, arguments: argparse.Namespace) -> int:
    if sys.stdin.isatty():
        say("each line that you type is published; end with Ctrl-D")
    failed = 0
    unavailable = False
    for line in _lines():
        try:
            _publish(hub, arguments, line)
        except (BrokerUnavailable, InvalidEvent) as error:
            if not (unavailable and isinstance(error, BrokerUnavailable)):  # once per outage
                say(str(error))
            unavailable = isinstance(error, BrokerUnavailable)
            failed += 1
        else:
            unavailable = False
    if failed:
        say(f"{failed} {'line was' if failed == 1 else 'lines were'} not published")
    return 1 if failed else 0


def _lines() -> Iterator[str]:
    # readline: iterating over a file may wait for more than the line that has arrived.
    while line := sys.stdin.buffer.readline():
        yield line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", "replace")
