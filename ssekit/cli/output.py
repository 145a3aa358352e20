"""How the commands print events: as text, as lines of JSON, or as an event stream."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable

from ssekit.cli.common import printable, say
from ssekit.wire import Decoder, Event


def form_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose how events are printed."""
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a line of JSON for each event")
    form.add_argument("--raw", action="store_true", help="print the event stream itself")


def form_of(arguments: argparse.Namespace) -> Callable[[Event], None]:
    """Return the function that prints an event as the options say."""
    if arguments.json:
        return _as_json
    return _as_stream if arguments.raw else _as_text


def is_own(event: Event) -> bool:
    """Return whether it is one of the hub's own events."""
    return (event.event or "").startswith("stream-")


def write(output: bytes) -> None:
    """Write to standard output at once."""
    sys.stdout.buffer.write(output)
    sys.stdout.buffer.flush()


def as_nothing(_event: Event) -> None:
    """Print nothing."""


def _as_json(event: Event) -> None:
    event = _as_seen(event)
    fields = {"event": event.event, "data": event.data, "id": event.id}
    write(f"{json.dumps(fields, ensure_ascii=False)}\n".encode())


def _as_text(event: Event) -> None:
    event = _as_seen(event)
    if event.event == "stream-reset":
        say(f"some events were missed and are no longer available ({event.data})")
    elif event.event == "stream-end":
        say(f"a channel has ended: {event.data}")
    elif event.event != "stream-open":
        text = event.data if event.event == "message" else f"{event.event}: {event.data}"
        write(f"{printable(text) if sys.stdout.isatty() else text}\n".encode())


def _as_stream(event: Event) -> None:
    write(event.encode())


def _as_seen(event: Event) -> Event:
    """Return the event as a client of the stream gets it: with a type, and with data as text."""
    (seen,) = Decoder().feed(event.encode())
    return seen
