"""A CGI script of a WSGI application that fails before it answers."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from ssekit.cgi import run

run(lambda environ, start_response: 1 / 0)
