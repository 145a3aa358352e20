"""Import what a script calls by a star, and print what that should not import."""

from __future__ import annotations

import sys

from ssekit.script import *

names = [comment, return_event_data, send, start]
print(*({"werkzeug", "gevent", "ssekit.script.folder"} & set(sys.modules)))
