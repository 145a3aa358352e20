"""A script that sends nothing, and exits if the environment's EXIT says so."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from ssekit.script import environ

assert environ is not None  # The run begins with the first look at its request.
if os.environ.get("EXIT"):
    sys.exit()
