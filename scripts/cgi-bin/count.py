#!/usr/bin/env python3
"""Counts, one number a second.  Cut the connection: it goes on where the client was."""

import os
import sys

# A CGI host runs this file as it is: the package is found two folders up, without an install.
# Where each client has a run in the same process, the first one has said so for all.
root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
if root not in sys.path:
    sys.path.insert(0, root)

from ssekit import every, script

last = script.last_event_id or ""
number = int(last) if last.isdecimal() and len(last) < 16 else 0

for _ in every(1):
    number += 1
    script.send(number, id=str(number))
