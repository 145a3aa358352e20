"""Behind every way in ``tests/test_ways.py``: one log, the clock, read from any place in it.

It is an append-only log that every process knows without talking to another: event N of it exists
from the moment N * interval of the machine's monotonic clock.  A stream begins now, or after
``Last-Event-ID``, so that a client that comes back can be shown to miss nothing.  The standard
library and ssekit are enough, because it also runs as a CGI script.

``/probe`` is ssekit's probe; everything else is the log.
``?interval=`` seconds between events; ``?name=`` writes NAME.open and NAME.closed into the folder
SSEKIT_TEST_FOLDER; ``?silent=1`` sends one event and then waits.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from ssekit import Event, Stream, every
from ssekit.probe import Probe
from ssekit.stream import last_event_id

HEARTBEAT = 0.5
# A CGI host may pass no variables of ours: there the folder is the one above the script's.
FOLDER = Path(os.environ.get("SSEKIT_TEST_FOLDER") or Path(__file__).resolve().parent.parent)


def events(environ: dict[str, Any], query: dict[str, str]) -> Iterator[Event]:
    interval = float(query.get("interval", 0.1))
    now = int(time.monotonic() / interval)
    number = int(last_event_id(environ) or now)
    about = {
        "last": last_event_id(environ),
        "authorization": environ.get("HTTP_AUTHORIZATION"),
        "script_name": environ["SCRIPT_NAME"],
        "path": environ["PATH_INFO"],
        "scheme": environ["wsgi.url_scheme"],
    }
    for _ in every(interval):
        while number < int(time.monotonic() / interval):
            number += 1
            yield Event({"sent": time.monotonic(), **about}, id=str(number))


def noted(environ: dict[str, Any], query: dict[str, str]) -> Iterator[Event]:
    name = query.get("name", "")
    if name:
        (FOLDER / f"{name}.open").touch()
    try:
        if query.get("silent"):
            yield Event("silence follows")
            for _ in every(3600):
                yield None
        else:
            yield from events(environ, query)
    finally:
        if name:
            (FOLDER / f"{name}.part").write_text(str(time.monotonic()))
            (FOLDER / f"{name}.part").rename(FOLDER / f"{name}.closed")


probe = Probe()


def app(environ: dict[str, Any], start_response: Any) -> Any:
    if environ["PATH_INFO"] == "/probe":
        return probe(environ, start_response)
    query = {key: values[0] for key, values in parse_qs(environ["QUERY_STRING"]).items()}
    stream = Stream(lambda: noted(environ, query), heartbeat=HEARTBEAT, retry=50)
    return stream(environ, start_response)
