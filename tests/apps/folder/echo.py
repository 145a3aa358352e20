"""Sends what the run was asked, then sleeps in its own code."""

import time

from ssekit import script

script.send({"last": script.last_event_id, "path": script.request.path}, id="1")
time.sleep(3600)
