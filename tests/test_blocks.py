"""Streams built from parts: an opener, and the blocks of each client."""

from __future__ import annotations

import io
from typing import Any
from wsgiref.handlers import SimpleHandler

import pytest

from ssekit import host
from ssekit.stream.admission import Limit, Overloaded, open_streams
from ssekit.stream.blocks import Blocks, Opener
from ssekit.stream.open import OpenStream
from ssekit.stream.source import Stop
from ssekit.stream.stream import Stream
from ssekit.testing import connect
from ssekit.wire import Decoder, Event


class Counting(Blocks):
    """Three events, and what was called."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.left = 3

    def next_block(self, client: host.Client) -> tuple[int, bytes]:
        if not self.left:
            raise StopIteration
        self.left -= 1
        return 1, Event(self.left).encode()

    def close(self, client: host.Client) -> None:
        self.calls.append("close")


class Taking(Counting):
    """One event by the server; then it takes the client over."""

    def take_over(self, stream: OpenStream) -> bool:
        if self.left == 3:
            return False
        assert stream.connection is not None
        self.calls.append(f"take over after {stream.events} event")
        stream.end(host.DISCONNECTED)
        return True


class Waiting(Counting):
    """Nothing, until the client leaves."""

    def next_block(self, client: host.Client) -> tuple[int, bytes]:
        client.wait()
        return 0, b""


class Opening(Opener):
    def __init__(self, blocks: Blocks | Exception, limit: int | None = None) -> None:
        self.limit = Limit(limit)
        self.blocks = blocks

    def open(self, environ: dict[str, Any]) -> Blocks:
        if isinstance(self.blocks, Exception):
            raise self.blocks
        return self.blocks


def test_a_stream_sends_the_blocks_that_its_opener_returns_and_closes_them() -> None:
    blocks = Counting()
    with connect(Stream(Opening(blocks))) as stream:
        assert [event.data for event in stream] == ["2", "1", "0"]
    assert blocks.calls == ["close"]
    assert open_streams() == 0


def test_blocks_that_took_the_client_over_are_not_asked_or_closed_any_more() -> None:
    blocks = Taking()
    output = io.BytesIO()  # a server that ssekit knows, without a socket
    environ = {"REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.0"}
    SimpleHandler(io.BytesIO(), output, io.StringIO(), environ).run(Stream(Opening(blocks)))
    body = output.getvalue().partition(b"\r\n\r\n")[2]
    assert [event.data for event in Decoder().feed(body)] == ["2"]
    assert blocks.calls == ["take over after 1 event"]
    assert open_streams() == 0


def test_an_openers_limit_bounds_its_streams() -> None:
    limited = Stream(Opening(Waiting(), limit=1))
    with connect(limited), connect(limited, headers={"Accept": "*/*"}) as second:
        assert second.status == 503


@pytest.mark.parametrize(
    ("error", "accept", "status"),
    [
        (Overloaded(), "text/event-stream", 200),
        (Overloaded(), "*/*", 503),
        (Stop(), "text/event-stream", 204),
    ],
)
def test_what_an_opener_raises_is_an_answer(error: Exception, accept: str, status: int) -> None:
    with connect(Stream(Opening(error)), headers={"Accept": accept}) as answer:
        assert answer.status == status
        assert b"data" not in answer.read_all()
    assert open_streams() == 0
