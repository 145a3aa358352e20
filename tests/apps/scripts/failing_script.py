"""A CGI script that fails before it sends anything."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from ssekit.script import environ

print(environ[1 / 0])
