#!/usr/bin/env python3
"""The PHP blog's loop: the time, every ten seconds or as often as ``?interval=`` says."""

import os
import sys
import time
from urllib.parse import parse_qs

# A CGI host runs this file as it is: the package is found two folders up, without an install.
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))

from ssekit import every, script

query = parse_qs(script.environ["QUERY_STRING"])
interval = float(query.get("interval", ["10"])[0])

for _ in every(min(max(interval, 0.1), 60)):
    now = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    script.return_event_data({"id": int(time.time()), "message": f"Welcome, it is {now}"})
