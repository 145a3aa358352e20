"""Where ssekit keeps what should survive a restart: a folder of this user alone."""

from __future__ import annotations

import os
from pathlib import Path


def state_folder() -> Path:
    """Return the user's state folder for ssekit, after making it (XDG Base Directory).

    It is never the current folder.  Raises OSError or RuntimeError where the user has no place.
    """
    state = os.environ.get("XDG_STATE_HOME", "")
    base = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    folder = base / "ssekit"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
