"""What the commands share: how they tell the user something, and how they open the hub."""

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

# Colours are let through; what else a terminal obeys could hide or forge what it shows.
_OBEYED = re.compile("\x1b\\[[0-9;]*m|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Usage(Exception):
    """Raised for arguments that make no sense together; it ends in the exit code 2."""


def printable(text: str) -> str:
    """Return the text with the control characters that a terminal obeys made visible."""
    return _OBEYED.sub(lambda found: found[0] if len(found[0]) > 1 else ascii(found[0])[1:-1], text)


def say(text: str) -> None:
    """Tell the user, on standard error."""
    print(f"ssekit: {printable(text)}", file=sys.stderr, flush=True)


def hub_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the hub."""
    parser.add_argument(
        "--url",
        metavar="HUB",
        help="sqlite:///FILE, redis://HOST:PORT/0, ... (default: SSEKIT_URL, or else the file "
        "that wsgi.py uses too)",
    )


@contextmanager
def hub_of(arguments: argparse.Namespace) -> Iterator[Hub]:
    """Open the hub that the arguments name until the block ends."""
    from ssekit.hub import Hub, default_url  # what --help need not wait for

    try:
        url = arguments.url or default_url()
    except (OSError, RuntimeError) as error:
        raise SSEError(
            f"there is no place for the hub's file ({error}); name one: --url"
        ) from error
    if url.startswith("memory:"):
        raise Usage("memory: is a hub within one process, and this is a process of its own")
    with misuse():
        hub = Hub(url)
    try:
        yield hub
    finally:
        hub.close()


@contextmanager
def misuse() -> Iterator[None]:
    """Show a ValueError, such as that of a channel without a name, as wrong usage."""
    try:
        yield
    except InvalidEvent:  # a ValueError, but of the data
        raise
    except ValueError as error:
        raise Usage(str(error)) from error
