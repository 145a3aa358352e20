"""The commands of ``ssekit``, a module each, and what they share: a way to speak to the user.

A command writes what it was asked for to standard output and everything else to standard error.
"""

from __future__ import annotations

import argparse
import re
import sys
from typing import TYPE_CHECKING

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


def hub_of(arguments: argparse.Namespace) -> Hub:
    """Return the hub that the arguments name."""
    from ssekit.hub import Hub, default_url  # what --help need not wait for

    return Hub(arguments.url or default_url())
