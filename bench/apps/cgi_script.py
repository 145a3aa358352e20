"""A CGI script with ssekit: its first event is timed, and it ends."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))

from ssekit.script import send

send("hello")
