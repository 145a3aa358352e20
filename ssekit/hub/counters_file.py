"""Where the processes of a hub keep the numbers that they share, found by the hub's URL alone."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from urllib.parse import unquote_to_bytes

from ssekit.host.counter_files import SUFFIX
from ssekit.host.state import state_folder


def counters_file(url: str, part: str = "") -> Path | None:
    """Return the file: beside a sqlite hub's own, for other hubs in the user's state folder.

    ``part`` names another one for other numbers.

    Returns None for ``memory:``, whose processes share nothing, and where there is no such folder.
    """
    if url.startswith("memory:"):
        return None
    if url.startswith("sqlite:///"):
        path = os.fsdecode(unquote_to_bytes(url.removeprefix("sqlite:///")))
        return Path(os.path.realpath(path) + part + SUFFIX)
    try:
        # Hashed: a URL may have a password in it.
        return state_folder() / (hashlib.sha256(url.encode()).hexdigest()[:16] + part + SUFFIX)
    except (OSError, RuntimeError):
        return None
