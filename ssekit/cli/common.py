"""What the commands share: messages to the user, and opening the hub."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ssekit.errors import InvalidEvent, SSEError

if TYPE_CHECKING:
    from ssekit.hub import Hub

# Colours are allowed; other control sequences could hide or forge what a terminal shows.
_CONTROLS = re.compile("\x1b\\[[0-9;]*m|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Usage(Exception):
    """Raised for wrong arguments; the exit code is then 2."""


def printable(text: str) -> str:
    """Return the text with control characters made visible, except for colours."""
    return _CONTROLS.sub(
        lambda found: found[0] if len(found[0]) > 1 else ascii(found[0])[1:-1], text
    )


def say(text: str) -> None:
    """Print a message to the user on standard error."""
    print(f"ssekit: {printable(text)}", file=sys.stderr, flush=True)


def hub_option(parser: argparse.ArgumentParser) -> None:
    """Add the option for the hub's URL."""
    parser.add_argument(
        "--url",
        metavar="HUB",
        help="sqlite:///FILE, redis://HOST:PORT/0, ... (default: SSEKIT_URL, or else the file "
        "in your state folder that wsgi.py uses too)",
    )


@contextmanager
def hub_of(arguments: argparse.Namespace) -> Iterator[Hub]:
    """Open the hub that the arguments name, and close it at the end of the block."""
    from ssekit.hub import Hub, default_url  # imported late, so that --help is fast

    try:
        url = arguments.url or default_url()
    except (OSError, RuntimeError) as error:
        raise SSEError(
            f"there is no place for the hub's file ({error}); choose one with --url"
        ) from error
    if url.startswith("memory:"):
        raise Usage(
            "memory: is a hub within one process, and this is another process; choose another --url"
        )
    with misuse():
        hub = Hub(url)
    try:
        yield hub
    finally:
        hub.close()


@contextmanager
def misuse() -> Iterator[None]:
    """Show a ValueError, for instance for an invalid channel, as wrong usage."""
    try:
        yield
    except InvalidEvent:  # a ValueError too, but about the data
        raise
    except ValueError as error:
        raise Usage(str(error)) from error
