"""Prints when it has sent its first event."""

from ssekit.script import send

send("first")
print("the script goes on", flush=True)
send("second")
