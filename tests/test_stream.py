"""A source as a WSGI application, without a server: what it answers, sends, refuses and ends."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from werkzeug.exceptions import NotFound

from ssekit import Event, InvalidEvent, SSEError, Stream, every
from ssekit.stream import Stop
from ssekit.testing import connect
from tests.answers import request
from tests.clients import after_opening
from tests.waiting import until

HELLO = Stream(["hello"])


def test_the_headers_of_a_stream() -> None:
    with connect(HELLO) as stream:
        assert stream.headers.items() == [
            ("Content-Type", "text/event-stream; charset=utf-8"),
            ("Cache-Control", "no-cache, no-transform"),
            ("X-Accel-Buffering", "no"),
        ]


def test_further_headers_join_or_replace_ours() -> None:
    app = Stream(["x"], headers={"X-Mine": "1", "cache-control": "no-store"})
    with connect(app) as stream:
        assert stream.headers["Cache-Control"] == "no-store"
        assert stream.headers["X-Mine"] == "1"
        assert stream.headers["X-Accel-Buffering"] == "no"


@pytest.mark.parametrize(
    "headers",
    [
        [("Connection", "keep-alive")],
        [("Content-Length", "1")],
        [("Content-Type", "text/plain")],
        [("X", "a\r\nSet-Cookie: b")],
        [("X Y", "a")],
    ],
)
def test_headers_that_are_not_ours_to_set_are_refused(headers: list[tuple[str, str]]) -> None:
    with pytest.raises(ValueError, match="header"):
        Stream([], headers=headers)


@pytest.mark.parametrize(
    ("retry", "opening"), [(None, b"retry: [234]\\d\\d\\d\n"), (2500, b"retry: 2500\n")]
)
def test_the_first_block_does_not_wait_for_the_source(retry: int | None, opening: bytes) -> None:
    def never() -> Iterator[str]:
        for _ in every(60):
            yield from ()

    with connect(Stream(never, retry=retry)) as stream:
        assert re.fullmatch(opening, stream.read())


def test_an_error_before_the_headers_is_the_servers_to_answer() -> None:
    def broken() -> list[str]:
        raise RuntimeError("no database")

    with pytest.raises(RuntimeError, match="no database"), connect(Stream(broken)):
        pass


@pytest.mark.parametrize("error", [FileNotFoundError("news.db"), StopIteration(), SystemExit(1)])
def test_an_error_that_a_server_would_take_for_its_own_is_named_as_the_sources(
    error: BaseException,
) -> None:
    def broken() -> list[str]:
        raise error

    with pytest.raises(SSEError, match="the source failed") as raised, connect(Stream(broken)):
        pass
    assert raised.value.__cause__ is error


class OwnTimeout(BaseException):
    """As gevent's Timeout is not an Exception."""


def test_an_error_that_is_no_exception_ends_the_stream_cleanly_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def failing() -> Iterator[str]:
        yield "before"
        raise OwnTimeout

    with connect(Stream(failing)) as stream:
        assert after_opening(stream.read_all()).startswith(b"data: before\n\nretry: ")
    assert "OwnTimeout" in caplog.text


def test_an_http_exception_is_its_own_answer() -> None:
    def missing() -> list[str]:
        raise NotFound("no such room")

    with connect(Stream(missing)) as stream:
        assert stream.status == 404
        assert b"no such room" in stream.read_all()


@pytest.mark.parametrize("error", [Stop, NotFound])
def test_an_answer_that_comes_too_late_is_logged_with_what_to_do(
    error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    def generator() -> Iterator[str]:
        raise error
        yield

    with connect(Stream(generator)) as stream:
        assert after_opening(stream.read_all()).startswith(b"retry: ")
    assert "raise it in a function that returns the events" in caplog.text


@pytest.mark.parametrize("origin", ["https://page.example", "https://evil.example"])
def test_a_page_of_an_admitted_origin_can_read_every_answer(origin: str) -> None:
    def missing() -> list[str]:
        raise NotFound

    app = Stream(missing, origins=("https://page.example",))
    admitted = origin if origin == "https://page.example" else None
    for method, accept, status in [
        ("GET", "*/*", 404),
        ("GET", "text/html", 406),
        ("POST", "*/*", 405),
    ]:
        answer = request(
            method, app, HTTP_ORIGIN=origin, HTTP_ACCEPT=accept, **{"wsgi.url_scheme": "http"}
        )
        assert answer[0] == status
        assert answer[1].get("Access-Control-Allow-Origin") == admitted
        assert answer[1]["Vary"] == "Origin"


def test_an_exit_in_a_source_ends_its_stream_alone(caplog: pytest.LogCaptureFixture) -> None:
    def leaving() -> Iterator[str]:
        yield "x"
        sys.exit("enough")

    with connect(Stream(leaving)) as stream:
        assert after_opening(stream.read_all()) == b"data: x\n\n"
    assert not caplog.records


def test_stop_answers_204() -> None:
    def finished() -> list[str]:
        raise Stop

    with connect(Stream(finished, origins="*")) as stream:
        assert stream.status == 204
        assert stream.headers["Access-Control-Allow-Origin"] == "*"
        assert stream.read_all() == b""


@pytest.mark.parametrize("bad", [b"bytes", float("nan"), object(), Event("x", id="a\nb")])
def test_an_item_that_cannot_be_sent_ends_the_stream_cleanly(
    bad: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with connect(Stream(["fine", bad, "never"])) as stream:
        body = stream.read_all()
    assert after_opening(body).startswith(b"data: fine\n\nretry: ")
    assert body.count(b"\n") == 4
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[0] is InvalidEvent


def test_an_error_in_the_source_is_logged_and_ends_the_stream_between_events(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def failing() -> Iterator[str]:
        yield "one"
        raise RuntimeError("lost the database")

    retries = set()
    for _ in range(8):
        with connect(Stream(failing, retry=1000)) as stream:
            body = stream.read_all()
        opening, event, _, closing_retry, _ = body.split(b"\n")
        assert (opening, event) == (b"retry: 1000", b"data: one")
        retries.add(int(closing_retry.removeprefix(b"retry: ")))
    assert all(500 <= retry <= 1500 for retry in retries)
    assert len(retries) > 1
    assert "lost the database" in caplog.text


def test_leaving_ends_a_source_that_waits_in_every() -> None:
    ended = []

    def clock() -> Iterator[int]:
        try:
            yield from every(30)
        finally:
            ended.append(True)

    with connect(Stream(clock)) as stream:
        assert next(stream).data == "0"
    assert ended == [True]


def test_a_source_that_waits_in_every_has_heartbeats() -> None:
    with connect(Stream(lambda: every(30), heartbeat=0.05)) as stream:
        next(stream)
        assert [stream.read() for _ in range(3)][1:] == [b":\n"] * 2


def test_none_becomes_a_heartbeat_only_when_one_is_due() -> None:
    def idle() -> Iterator[None]:
        for _ in every(0.01):
            yield None

    with connect(Stream(idle, heartbeat=0.1)) as stream:
        stream.read()
        assert [stream.read() for _ in range(3)][1:] == [b":\n"] * 2
    with connect(Stream(idle, heartbeat=60), timeout=0.2) as stream:
        stream.read()
        with pytest.raises(TimeoutError):
            stream.read()


def test_head_has_the_headers_alone() -> None:
    called = []
    with connect(Stream(lambda: called), headers={}) as stream:
        get_headers = stream.headers.items()
    answer = request("HEAD", Stream(lambda: called.append(1) or []))
    assert answer == (200, dict(get_headers), b"")
    assert not called


def test_no_answer_to_head_has_a_body() -> None:
    for app, accept, status in [
        (HELLO, "text/html", 406),
        (Stream([], methods=("POST",)), "*/*", 405),
    ]:
        answer = request("HEAD", app, HTTP_ACCEPT=accept)
        assert (answer[0], answer[2]) == (status, b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "TRACE", "get", ""])
def test_another_method_is_answered_405_with_allow(method: str) -> None:
    status, headers, body = request(method, HELLO)
    assert (status, headers["Allow"]) == (405, "GET, HEAD, OPTIONS")
    assert b"GET" in body


def test_methods_can_be_chosen() -> None:
    app = Stream(["x"], methods=("POST",))
    assert request("POST", app)[0] == 200
    for method in ("GET", "HEAD"):
        status, headers, _ = request(method, app)
        assert (status, headers["Allow"]) == (405, "POST, OPTIONS")


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("", 200),
        ("*/*", 200),
        ("text/event-stream", 200),
        ("Text/Event-Stream ; q=0.5", 200),
        ("text/*", 200),
        ("text/html, */*;q=0.1", 200),
        ("text/html", 406),
        ("application/json, text/plain", 406),
        ("*", 200),
        ("*; q=.2", 200),
        (" , ,", 200),
        ('text/html;level="1,2", text/event-stream;q=0.1', 200),
        ("text/event-stream;q=0", 406),
        ("text/event-stream;q=0.000, */*", 406),
        ("TEXT/EVENT-STREAM;Q=0", 406),
        ("*/*, text/event-stream;q=0", 406),
        ("text/*;q=0, */*", 406),
        ("*/*;q=junk", 406),
    ],
)
def test_accept_is_honoured(accept: str, status: int) -> None:
    assert request("GET", HELLO, HTTP_ACCEPT=accept)[0] == status


@pytest.mark.parametrize("heartbeat", [0, -1, float("nan")])
def test_a_heartbeat_must_be_above_zero(heartbeat: float) -> None:
    with pytest.raises(ValueError, match="heartbeat"):
        Stream([], heartbeat=heartbeat)


def test_retry_is_checked_at_once() -> None:
    with pytest.raises(InvalidEvent):
        Stream([], retry=-1)


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_every_needs_seconds(seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds"):
        every(seconds)


def test_every_skips_the_ticks_that_it_missed() -> None:
    ticks = every(0.05)
    assert next(ticks) == 0
    slow = every(0.001)
    next(slow)
    for _ in range(3):
        next(ticks)
    assert next(slow) > 100


def test_one_access_line_is_logged_for_an_ended_stream(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ssekit.streams")
    with connect(HELLO, "/a%0Ab") as stream:
        stream.read_all()
    record = until(lambda: caplog.records)[0]
    assert record.getMessage().endswith("events=1 bytes=25 ended='source ended'")
