"""Sources that sleep, tick, fail and misbehave, and an address that counts how they ended."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

from ssekit import Stream, every
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


def endless() -> Iterator[str]:
    def items() -> Iterator[str]:
        while True:
            yield "x" * 65536

    return counted(items())


def counts() -> Iterator[dict[str, Any]]:
    # The clock is the machine's: other processes may compare.
    yield {"opened": len(opened), "ended": len(ended), "at": ended[-200:]}


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


STREAMS: dict[str, Any] = {
    "/sleeping": Stream(sleeping, heartbeat=BEAT),
    "/quiet": Stream(sleeping, heartbeat=3600),
    "/ticking": Stream(ticking, heartbeat=BEAT),
    "/silent": Stream(silent, heartbeat=BEAT),
    "/stubborn": Stream(stubborn, heartbeat=BEAT),
    "/failing": Stream(failing),
    "/broken": Stream(broken),
    "/endless": Stream(endless),
    "/counts": Stream(counts),
    "/upper": upper(Stream(sleeping, heartbeat=BEAT)),
    "/folder": Folder(Path(__file__).parent / "folder", heartbeat=BEAT),
}
app = ProxyFix(DispatcherMiddleware(plain, STREAMS))
