"""Streams that are wrong, a path each: what the doctor has to find, in plain WSGI."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

Headers = list[tuple[str, str]]

STREAM = ("Content-Type", "text/event-stream")
UNCACHED = ("Cache-Control", "no-cache")
INTERVAL = 0.2


def event(number: int) -> bytes:
    return f"data: {number}\nid: {number}\n\n".encode()


def good(environ: dict[str, Any]) -> Iterator[bytes]:
    """A stream that is as it should be, but that ssekit has not made."""
    last = environ.get("HTTP_LAST_EVENT_ID") or "0"
    yield b"retry: 2000\n\n"
    begin = int(last) if last.isdigit() else 0
    for number in count(begin + 1):
        yield event(number)
        time.sleep(INTERVAL)


def for_a_while(environ: dict[str, Any], events: int = 8) -> Iterator[bytes]:
    for _, block in zip(range(events + 1), good(environ), strict=False):
        yield block


def late(environ: dict[str, Any]) -> Iterator[bytes]:
    time.sleep(1.2)
    yield from good(environ)


def silent(environ: dict[str, Any]) -> Iterator[bytes]:
    for _, block in zip(range(3), good(environ), strict=False):
        yield block
    time.sleep(600)


def always_from_the_start(environ: dict[str, Any]) -> Iterator[bytes]:
    yield from good({})


def live_only(environ: dict[str, Any]) -> Iterator[bytes]:
    yield b"retry: 2000\n\n"
    while True:
        number = int(time.monotonic() / INTERVAL)
        yield event(number)
        time.sleep(INTERVAL)


def saying(block: bytes) -> Callable[[dict[str, Any]], Iterator[bytes]]:
    """The good stream with other blocks."""

    def body(environ: dict[str, Any]) -> Iterator[bytes]:
        last = "".join(filter(str.isdigit, environ.get("HTTP_LAST_EVENT_ID") or "0"))
        yield b"retry: 2000\n\n"
        for number in count(int(last) + 1):
            yield block.replace(b"%d", b"%d" % number)
            time.sleep(INTERVAL)

    return body


def flood(environ: dict[str, Any]) -> Iterator[bytes]:
    last = environ.get("HTTP_LAST_EVENT_ID") or "0"
    yield b"retry: 2000\n\n"
    for number in count(int(last) + 1):
        yield event(number).replace(b"data: ", b"data: " + b"x" * 50_000)


def without_retry(environ: dict[str, Any]) -> Iterator[bytes]:
    for block in good(environ):
        if not block.startswith(b"retry"):
            yield block


BODIES: dict[str, Callable[[dict[str, Any]], Iterator[bytes]]] = {
    "/late": late,
    "/silent": silent,
    "/short": for_a_while,
    "/repeats": always_from_the_start,
    "/live-only": live_only,
    "/flood": flood,
    "/same-ids": saying(b"data: hello\nid: 1\n\n"),
    "/no-ids": saying(b"data: hello\n\n"),
    "/no-retry": without_retry,
    "/unknown-field": saying(b"data: %d\nid: %d\nhello\n\n"),
    "/bad-id": saying("data: %d\nid: \u00e9%d\n\n".encode()),
    "/bad-retry": saying(b"retry: 3s\ndata: %d\nid: %d\n\n"),
    "/latin": saying("data: caf\u00e9\nid: %d\n\n".encode("latin-1")),
    "/no-data": saying(b"event: tick\nid: %d\n\n"),
}
HEADERS: dict[str, Headers] = {
    "/cacheable": [STREAM],
    "/length": [STREAM, UNCACHED, ("Content-Length", "1000000")],
    "/type": [("Content-Type", "text/html"), UNCACHED],
    "/kept": [STREAM, UNCACHED, ("Connection", "keep-alive")],
    "/charset": [("Content-Type", "text/event-stream; charset=iso-8859-1"), UNCACHED],
    "/cors-seed": [
        STREAM,
        UNCACHED,
        ("Access-Control-Allow-Origin", "*"),
        ("Access-Control-Allow-Credentials", "*"),
    ],
    "/cors-twice": [STREAM, UNCACHED, *2 * [("Access-Control-Allow-Origin", "*")]],
}
STATUS = {"/error": "500 Internal Server Error", "/stay-away": "204 No Content"}


def app(environ: dict[str, Any], start_response: Any) -> Any:
    path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
    status, headers = STATUS.get(path, "200 OK"), HEADERS.get(path, [STREAM, UNCACHED])
    origin = environ.get("HTTP_ORIGIN", "")
    if path == "/round":
        status, headers = "302 Found", [("Location", "/round")]
    if path == "/moved":
        status, headers = "301 Moved Permanently", [("Location", "/good")]
    if path == "/reflects":
        headers = [*headers, ("Access-Control-Allow-Origin", origin), ("Vary", "Origin")]
        headers += [("Access-Control-Allow-Credentials", "true")]
    if path in ("/no-vary", "/no-preflight") and origin == "https://page.example":
        headers = [*headers, ("Access-Control-Allow-Origin", origin)]
        headers += [("Vary", "Origin")] if path == "/no-preflight" else []
    if method == "OPTIONS" and path == "/no-vary":
        headers = [*headers, ("Access-Control-Allow-Headers", "Last-Event-ID")]
    if method == "HEAD" and path == "/head":
        time.sleep(60)
    if method == "POST" and path != "/post":
        status = "405 Method Not Allowed"
    start_response(status, headers)
    if method in ("HEAD", "OPTIONS") or not status.startswith("200"):
        return []
    return BODIES.get(path, good)(environ)
