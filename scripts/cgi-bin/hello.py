#!/usr/bin/env python3
"""Workerman's page: "hello" every two seconds to a client that asks for a stream, else "ok"."""

import os
import sys

# A CGI host runs this file as it is: the package is found two folders up, without an install.
# Where each client has a run in the same process, the first one has said so for all.
root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
if root not in sys.path:
    sys.path.insert(0, root)

from ssekit import every, script

headers = [("Vary", "Accept")]

if "text/event-stream" in script.environ.get("HTTP_ACCEPT", ""):
    script.start(headers=headers)
    for tick in every(2):
        if tick:  # The first is at once; a timer's comes after its interval.
            script.send("hello", event="message", id="1")
else:
    script.respond("ok", headers=headers)
