"""`ssekit.testing.connect` is a client of any WSGI application, and keeps to PEP 3333."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.validate import validator

import pytest

from ssekit import Event, Stream, every
from ssekit.testing import connect

Start = Callable[..., Callable[[bytes], object]]
STREAM = [("Content-Type", "text/event-stream")]


def test_the_request_is_what_a_server_would_give() -> None:
    seen: dict[str, Any] = {}

    def app(environ: dict[str, Any], start_response: Start) -> list[bytes]:
        seen.update(environ)
        start_response("200 OK", STREAM)
        return [b"data: x\n\n"]

    with connect(
        validator(app),  # type: ignore[arg-type]
        "/a%20room/\u5ba4?q=%20\u00e9&channel=a",
        last_event_id="\u00e9-7",
        headers={"X-Mine": "1", "Content-Type": "text/plain"},
    ) as stream:
        assert list(stream) == [Event("x", "message", "")]
    assert (seen["REQUEST_METHOD"], seen["SCRIPT_NAME"]) == ("GET", "")
    assert seen["PATH_INFO"].encode("latin-1").decode() == "/a room/\u5ba4"
    assert seen["QUERY_STRING"] == "q=%20%C3%A9&channel=a"
    assert seen["HTTP_LAST_EVENT_ID"].encode("latin-1").decode() == "\u00e9-7"
    assert (seen["HTTP_X_MINE"], seen["CONTENT_TYPE"]) == ("1", "text/plain")
    assert seen["HTTP_ACCEPT"] == "text/event-stream"


def test_what_is_written_and_what_is_returned_arrive_in_order() -> None:
    def app(environ: dict[str, Any], start_response: Start) -> list[bytes]:
        write = start_response("200 OK", STREAM)
        write(b"data: written\n\n")
        return [b"data: retu", b"rned\n\n"]

    with connect(validator(app)) as stream:  # type: ignore[arg-type]
        assert [event.data for event in stream] == ["written", "returned"]


def test_an_empty_block_is_not_the_end() -> None:
    def app(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", STREAM)
        yield b""
        yield b"data: first\n\n"
        yield b""
        yield b"data: second\n\n"

    with connect(validator(app)) as stream:  # type: ignore[arg-type]
        assert [event.data for event in stream] == ["first", "second"]


@pytest.mark.parametrize("comments", [False, True])
def test_a_wait_past_the_timeout_raises(comments: bool) -> None:
    def source() -> Iterator[Event | None]:
        for _ in every(0.01):
            yield Event(comment="no event") if comments else None

    with connect(Stream(source), timeout=0.1) as stream, pytest.raises(TimeoutError):
        next(stream)


def test_an_application_that_does_not_answer_raises() -> None:
    go_on = threading.Event()

    def source() -> list[str]:
        go_on.wait(10)
        return []

    with pytest.raises(TimeoutError, match="no headers"), connect(Stream(source), timeout=0.1):
        pass
    go_on.set()


def test_what_the_application_raises_is_raised_in_the_test() -> None:
    def app(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", STREAM)
        yield b"data: before\n\n"
        raise RuntimeError("after the first event")

    with connect(app) as stream:
        assert next(stream).data == "before"
        with pytest.raises(RuntimeError, match="after the first event"):
            next(stream)


@pytest.mark.parametrize("wait", [lambda: None, lambda: time.sleep(0.05)])
def test_leaving_is_the_clients_leaving(wait: Callable[[], None]) -> None:
    ended = []

    def source() -> Iterator[str]:
        try:
            for _ in every(0.01):
                wait()
                yield "x"
        finally:
            ended.append(True)

    with connect(Stream(source)) as stream:
        next(stream)
        assert not ended
    assert ended


def test_a_stream_that_has_ended_stays_ended() -> None:
    with connect(Stream(["x"])) as stream:
        assert [next(stream).data, list(stream), list(stream)] == ["x", [], []]
        assert stream.read() == b""
