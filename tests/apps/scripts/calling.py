"""Runs another program, which writes to standard output, between two events."""

from __future__ import annotations

import subprocess

from ssekit import script

script.send("first")
subprocess.run(["/bin/echo", "from another program"], check=True)
script.send("second")
