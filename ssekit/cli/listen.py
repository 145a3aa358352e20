"""``ssekit listen``: print the events of a URL, or of the hub's channels, as they arrive.

Both kinds of source are iterators of events with ``close()``; everything else here is printing.
"""

from __future__ import annotations

import argparse
import json
import re
import select
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from ssekit.cli.common import Usage, hub_of, hub_option, misuse, printable, say
from ssekit.wire import Decoder, Event

if TYPE_CHECKING:
    from ssekit.client import Listener

EPILOG = """\
A source that begins with http:// or https:// is a stream; anything else is a channel of the hub.
After a lost connection it resumes from the last event. The output:
  (default)  the data as text; for types other than "message" as TYPE: DATA
  --json     a line for each event: {"event": ..., "data": ..., "id": ...}
  --raw      the event stream itself; for a URL the bytes as received, including comments

A hub sends stream-open to a new client, and stream-reset if it no longer has what a client missed.
Both are in --json and --raw, but do not count for --count.

examples:
  ssekit listen http://127.0.0.1:8000/clock
  ssekit listen https://www.example.org/events --header "Authorization: Bearer ..." --json
  ssekit listen build deploy
  ssekit listen news --count 1 --last-event-id 1760000000000-41
"""
_NAME = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)  # of a header: RFC 9110, 5.6.2
HUB_EVENTS = ("stream-open", "stream-reset")


class Source(Protocol):
    """Where events come from."""

    def __iter__(self) -> Iterator[Event]: ...
    def close(self) -> None: ...


def options(parser: argparse.ArgumentParser) -> None:
    parser.description = "Print the events of a URL, or of channels of the hub, as they arrive."
    parser.epilog = EPILOG
    parser.add_argument("sources", metavar="URL|CHANNEL", nargs="+", help="a URL, or channels")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a line of JSON for each event")
    form.add_argument("--raw", action="store_true", help="print the event stream itself")
    parser.add_argument("--count", type=int, metavar="N", help="end after N events")
    parser.add_argument("--last-event-id", metavar="ID", help="begin after the event with this id")
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
    show: Callable[[Event], None] = _as_text
    if arguments.json:
        show = _as_json
    elif arguments.raw:
        show = _as_stream
    if not urls:
        if arguments.header or arguments.timeout is not None:
            raise Usage("--header and --timeout are for a URL, not for channels")
        with hub_of(arguments) as hub:
            with misuse():
                events = hub.subscribe(*arguments.sources, last_event_id=arguments.last_event_id)
            return _print(events, show, arguments.count)
    if len(arguments.sources) > 1:
        raise Usage("listen to either one URL or to channels")
    if arguments.url is not None:
        raise Usage("--url is the hub of a channel; to listen to a URL, leave --url out")
    if arguments.raw:
        show = _as_nothing  # its bytes are written as received, including comments
    return _print(_listener(arguments, urls[0]), show, arguments.count)


def _print(source: Source, show: Callable[[Event], None], count: int | None) -> int:
    """Show events until the source ends, ``count`` were shown, or nobody reads the output."""
    _when_unread(source.close)
    try:
        for event in source:
            show(event)
            if count is not None and event.event not in HUB_EVENTS:
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
        tap=_write if arguments.raw else None,
    )


def _as_json(event: Event) -> None:
    event = _as_seen(event)
    fields = {"event": event.event, "data": event.data, "id": event.id}
    _write(f"{json.dumps(fields, ensure_ascii=False)}\n".encode())


def _as_text(event: Event) -> None:
    event = _as_seen(event)
    if event.event == "stream-reset":
        say(f"some events were missed and are no longer available ({event.data})")
    elif event.event != "stream-open":
        text = event.data if event.event == "message" else f"{event.event}: {event.data}"
        _write(f"{printable(text) if sys.stdout.isatty() else text}\n".encode())


def _as_stream(event: Event) -> None:
    _write(event.encode())


def _as_nothing(_event: Event) -> None:
    pass


def _as_seen(event: Event) -> Event:
    """Return the event as a client of the stream gets it: with a type, and with data as text."""
    (seen,) = Decoder().feed(event.encode())
    return seen


def _write(output: bytes) -> None:
    sys.stdout.buffer.write(output)
    sys.stdout.buffer.flush()


def _when_unread(close: Callable[[], object]) -> None:
    """Call ``close`` as soon as nobody reads the output: the next event may take long."""
    poll = select.poll()
    with suppress(OSError, ValueError):  # standard output may be closed or replaced
        poll.register(sys.stdout.fileno(), 0)  # POLLERR and POLLHUP are always reported

        def watch() -> None:
            poll.poll()
            close()

        threading.Thread(target=watch, name="ssekit-unread", daemon=True).start()
