"""Prints headers, as a CGI script does that knows no ssekit, and then sends an event."""

from __future__ import annotations

from ssekit import script

print("Content-Type: text/event-stream")
print()
script.send("event")
