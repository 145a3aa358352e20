"""Sources that sleep, tick, fail and misbehave, and an address that counts how they ended."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from werkzeug import Request
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

from ssekit import Event, Hub, Stream, every
from ssekit.script import Folder

logging.basicConfig(level=logging.INFO)
BEAT = 0.1
opened: list[float] = []
ended: list[float] = []


def counted(items: Iterator[Any]) -> Iterator[Any]:
    opened.append(time.monotonic())
    try:
        yield from items
    finally:
        ended.append(time.monotonic())
        folder = os.environ.get("ENDED_FOLDER")
        if folder:
            Path(folder, f"{os.getpid()}-{len(ended)}").touch()


def sleeping() -> Iterator[str]:
    def items() -> Iterator[str]:
        yield "sleeping"
        time.sleep(3600)

    return counted(items())


def ticking() -> Iterator[int]:
    return counted(every(3600))


def silent() -> Iterator[str]:
    time.sleep(3600)
    yield "an hour later"


def stubborn() -> Iterator[str]:
    def items() -> Iterator[str]:
        yield "stubborn"
        try:
            time.sleep(3600)
        except BaseException:
            time.sleep(3600)

    return counted(items())


def failing() -> Iterator[str]:
    yield "before"
    raise RuntimeError("after the first event")


def broken() -> list[str]:
    raise RuntimeError("before the first event")


def refused() -> list[str]:
    # Servers take an OSError for a client that has left.
    raise ConnectionRefusedError("the database before the first event")


def invalid(request: Request) -> Iterator[Any]:
    yield "before"
    yield INVALID[request.args["what"]]
    yield "after"


def endless() -> Iterator[str]:
    def items() -> Iterator[str]:
        while True:
            yield "x" * 65536

    return counted(items())


def never_waiting() -> Iterator[str]:
    while True:
        yield "x" * 100


def never_waiting_or_sending() -> Iterator[None]:
    while True:
        yield None


def counts() -> Iterator[dict[str, Any]]:
    # The clock is the machine's: other processes may compare.
    yield {
        "worker": os.getpid(),
        "opened": len(opened),
        "ended": len(ended),
        "at": ended[-200:],
    }


def upper(app: Any) -> Any:
    """Middleware that changes every block."""

    def wrapped(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        blocks = app(environ, start_response)
        try:
            for block in blocks:
                yield block.upper()
        finally:
            if hasattr(blocks, "close"):
                blocks.close()

    return wrapped


def plain(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)
INVALID: dict[str, Any] = {
    "a newline in the id": Event("x", id="1\nretry: 0"),
    "a carriage return in the id": Event("x", id="1\r"),
    "a NUL in the id": Event("x", id="1\0"),
    "a newline in the name": Event("x", event="a\ndata: injected"),
    "a carriage return in the name": Event("x", event="a\r"),
    "a NUL in the name": Event("x", event="\0"),
    "an id that is a number": Event("x", id=1),  # type: ignore[arg-type]
    "a retry below zero": Event("x", retry=-1),
    "a retry with a fraction": Event("x", retry=0.5),  # type: ignore[arg-type]
    "a retry that is text": Event("x", retry="5"),  # type: ignore[arg-type]
    "a retry without end": Event("x", retry=10**5000),
    "a lone surrogate": "\ud800",
    "a lone surrogate in JSON": {"a": "\ud800"},
    "a lone surrogate in the id": Event("x", id="\ud800"),
    "bytes that are not UTF-8": Event(b"\xff"),
    "NaN": float("nan"),
    "an infinity within": {"a": [float("inf")]},
    "what JSON does not know": {"a": object()},
    "a circle": CIRCLE,
}
STREAMS: dict[str, Any] = {
    "/sleeping": Stream(sleeping, heartbeat=BEAT),
    "/quiet": Stream(sleeping, heartbeat=3600),
    "/ticking": Stream(ticking, heartbeat=BEAT),
    "/silent": Stream(silent, heartbeat=BEAT),
    "/stubborn": Stream(stubborn, heartbeat=BEAT),
    "/failing": Stream(failing),
    "/broken": Stream(broken),
    "/refused": Stream(refused),
    "/invalid": Stream(invalid),
    "/hub": Hub().stream("a", heartbeat=BEAT),
    "/endless": Stream(endless),
    "/flood": Stream(never_waiting),
    "/spin": Stream(never_waiting_or_sending),
    "/counts": Stream(counts),
    "/upper": upper(Stream(sleeping, heartbeat=BEAT)),
    "/folder": Folder(Path(__file__).parent / "folder", heartbeat=BEAT),
}
app = ProxyFix(DispatcherMiddleware(plain, STREAMS))
