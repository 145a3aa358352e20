"""Streams whose log lines go to a handler that yields, fails, or is too slow for them."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

from ssekit import Stream, every
from ssekit.host import logs
from ssekit.stream.admission import open_streams

logs.MOST = int(os.environ.get("MOST", logs.MOST))
written: list[str] = []


class Slow(logging.Handler):
    """Takes half a second for each line, in which other greenlets run, and fails at times."""

    def emit(self, record: logging.LogRecord) -> None:
        time.sleep(0.5)
        written.append(record.getMessage())
        print(record.getMessage(), file=sys.stderr, flush=True)
        if len(written) == 1:
            raise RuntimeError("a handler that fails")


logging.getLogger("ssekit").setLevel(logging.INFO)
logging.getLogger("ssekit").addHandler(Slow())


def ticking() -> Iterator[int]:
    yield from every(0.05)


stream = Stream(ticking)


def app(environ: dict[str, Any], start_response: Any) -> Any:
    if environ["PATH_INFO"] == "/open":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"{open_streams()} {len(written)}".encode()]
    return stream(environ, start_response)
