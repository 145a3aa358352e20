"""``ssekit listen``: print the events of a URL, or of the hub's channels, as they arrive.

Both kinds of source are iterators of events with ``close()``; everything else here is printing.
"""

from __future__ import annotations

import argparse
import re
import select
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from ssekit.cli.common import Usage, hub_of, hub_option, misuse
from ssekit.cli.output import as_nothing, form_of, form_options, is_own, write
from ssekit.wire import Event

if TYPE_CHECKING:
    from ssekit.client import Listener

EPILOG = """\
A source that begins with http:// or https:// is a stream; anything else is a channel of the hub.
After a lost connection it resumes from the last event. The output:
  (default)  the data as text; for types other than "message" as TYPE: DATA
  --json     a line for each event: {"event": ..., "data": ..., "id": ...}
  --raw      the event stream itself; for a URL the bytes as received, including comments

A hub sends stream-open to a new client, stream-reset if it no longer has what a client missed,
stream-remove for a key that was removed, and stream-end at the end of a channel. All of them are in
--json and --raw, but do not count for --count. Once all channels are finished, listening ends.

examples:
  ssekit listen http://127.0.0.1:8000/clock
  ssekit listen https://www.example.org/events --header "Authorization: Bearer ..." --json
  ssekit listen build deploy
  ssekit listen build --from-start
  ssekit listen news --count 1 --last-event-id 1760000000000-41
"""
_NAME = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)  # of a header: RFC 9110, 5.6.2


class Source(Protocol):
    """Where events come from."""

    def __iter__(self) -> Iterator[Event]: ...
    def close(self) -> None: ...


def options(parser: argparse.ArgumentParser) -> None:
    parser.description = "Print the events of a URL, or of channels of the hub, as they arrive."
    parser.epilog = EPILOG
    parser.add_argument("sources", metavar="URL|CHANNEL", nargs="+", help="a URL, or channels")
    form_options(parser)
    parser.add_argument("--count", type=int, metavar="N", help="end after N events")
    begin = parser.add_mutually_exclusive_group()
    begin.add_argument("--last-event-id", metavar="ID", help="begin after the event with this id")
    begin.add_argument(
        "--from-start", action="store_true", help="begin with what the channels still have"
    )
    parser.add_argument(
        "--header",
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        help="send this header to the URL; repeatable",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="silence after which the URL's connection counts as lost (default: 50)",
    )
    hub_option(parser)


def run(arguments: argparse.Namespace) -> int:
    if arguments.count is not None and arguments.count < 1:
        raise Usage("--count needs a number from 1 up")
    urls = [name for name in arguments.sources if name.startswith(("http://", "https://"))]
    show = form_of(arguments)
    if not urls:
        if arguments.header or arguments.timeout is not None:
            raise Usage("--header and --timeout are for a URL, not for channels")
        with hub_of(arguments) as hub:
            with misuse():
                events = hub.subscribe(
                    *arguments.sources,
                    last_event_id=arguments.last_event_id,
                    replay="all" if arguments.from_start else 0,
                )
            return _print(events, show, arguments.count)
    if len(arguments.sources) > 1:
        raise Usage("listen to either one URL or to channels")
    if arguments.from_start:
        raise Usage("--from-start is for channels; what a URL begins with is up to its server")
    if arguments.url is not None:
        raise Usage("--url is the hub of a channel; to listen to a URL, leave --url out")
    if arguments.raw:
        show = as_nothing  # its bytes are written as received, including comments
    return _print(_listener(arguments, urls[0]), show, arguments.count)


def _print(source: Source, show: Callable[[Event], None], count: int | None) -> int:
    """Show events until the source ends, ``count`` were shown, or nobody reads the output."""
    _when_unread(source.close)
    try:
        for event in source:
            show(event)
            if count is not None and not is_own(event):
                count -= 1
                if not count:
                    break
    finally:
        source.close()
    return 0


def _listener(arguments: argparse.Namespace, url: str) -> Listener:
    from ssekit import client

    headers = []
    for header in arguments.header:
        name, colon, value = header.partition(":")
        if not (colon and _NAME.fullmatch(name.strip()) and header.isprintable()):
            raise Usage(f"--header needs 'NAME: VALUE', not {header!r}")
        headers.append((name.strip(), value.strip()))
    timeout = client.IDLE if arguments.timeout is None else arguments.timeout
    if not timeout > 0:
        raise Usage("--timeout needs seconds above 0")
    return client.listen(
        url,
        last_event_id=arguments.last_event_id,
        headers=headers,
        timeout=timeout,
        tap=write if arguments.raw else None,
    )


def _when_unread(close: Callable[[], object]) -> None:
    """Call ``close`` as soon as nobody reads the output: the next event may take long."""
    poll = select.poll()
    with suppress(OSError, ValueError):  # standard output may be closed or replaced
        poll.register(sys.stdout.fileno(), 0)  # POLLERR and POLLHUP are always reported

        def watch() -> None:
            poll.poll()
            close()

        threading.Thread(target=watch, name="ssekit-unread", daemon=True).start()
