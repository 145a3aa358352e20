"""Does what ``?do=`` says, one after the other: see `CALLS`."""

from __future__ import annotations

import sys
from urllib.parse import parse_qsl

from ssekit import script

CALLS = {
    "ok": lambda: script.respond("ok"),
    "bytes": lambda: script.respond(b"\x00\xff"),
    "empty": lambda: script.respond("", 204),
    "missing": lambda: script.respond("no caf\u00e9", 404, {"X-Mine": "1", "content-type": "a/b"}),
    "teapot": lambda: script.respond("", status=599),
    "dict": lambda: script.respond({"no": "text"}),  # type: ignore[arg-type]
    "continue": lambda: script.respond("x", 100),
    "body": lambda: script.respond("x", 204),
    "length": lambda: script.respond("x", headers=[("Content-Length", "7")]),
    "lines": lambda: script.respond("x", headers=[("X-Mine", "a\r\nSet-Cookie: b")]),
    "send": lambda: script.send("event"),
    "start": script.start,
    "print": lambda: print("Content-Type: text/plain\n"),
    "bytes-print": lambda: sys.stdout.buffer.write(b"Content-Type: text/plain\n\n"),
    "log": lambda: print("a line of the log", file=sys.stderr),
    "fail": lambda: 1 / 0,
    "method": lambda: script.respond(script.environ["REQUEST_METHOD"]),
}

for name, value in parse_qsl(script.environ["QUERY_STRING"]):
    if name == "do":
        CALLS[value]()
