#!/usr/bin/env python3
"""The PHP blog's loop: the time, every ten seconds or as often as ``?interval=`` says."""

import os
import sys
import time
from urllib.parse import parse_qs

# A CGI host runs this file as it is: the package is found two folders up, without an install.
# Where each client has a run in the same process, the first one has said so for all.
root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
if root not in sys.path:
    sys.path.insert(0, root)

from ssekit import every, script

query = parse_qs(script.environ["QUERY_STRING"])
try:
    interval = float(query["interval"][0])
except (KeyError, ValueError):
    interval = 10

for _ in every(min(60, max(0.1, interval))):
    now = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    script.return_event_data({"id": int(time.time()), "message": f"Welcome, it is {now}"})
