"""A script that tries the header of its query, and sends an event if that is refused."""

from __future__ import annotations

from ssekit.script import request, send, start

try:
    start(headers=list(request.args.items()))
except ValueError:
    send("refused")
