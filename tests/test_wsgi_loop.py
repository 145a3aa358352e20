"""The server's side of PEP 3333, which CGI and `ssekit.testing` share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ssekit.host import DISCONNECTED, Client
from ssekit.host.wsgi_loop import Application, Exchange, Headers
from ssekit.testing import connect

Start = Callable[..., Callable[[bytes], object]]
PLAIN: Headers = [("Content-Type", "text/plain")]


class Recorded:
    """What an application sends, in order: heads as pairs, blocks as bytes."""

    def __init__(self, leaves_after: int = sys.maxsize) -> None:
        self.client = Client()
        self.sent: list[tuple[str, Headers] | bytes] = []
        self._leaves_after = leaves_after

    def run(self, app: Application) -> list[Any]:
        Exchange(self.client, lambda *head: self._take(head), self._take).run(app, {})
        return self.sent

    def _take(self, part: Any) -> None:
        self.sent.append(part)
        if len(self.sent) >= self._leaves_after:
            self.client.ended = DISCONNECTED


class Blocks:
    """An iterable that says how often it was closed."""

    def __init__(self, *blocks: bytes | Exception) -> None:
        self._blocks = iter(blocks)
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        block = next(self._blocks)
        if isinstance(block, Exception):
            raise block
        return block

    def close(self) -> None:
        self.closed += 1


def answering(blocks: Any) -> Application:
    def app(environ: dict[str, Any], start_response: Start) -> Any:
        start_response("200 OK", PLAIN)
        return blocks

    return app


def test_the_head_leaves_with_the_first_block_that_is_not_empty() -> None:
    recorded = Recorded()

    def app(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b""
        assert recorded.sent == []
        yield b"x"
        yield b""
        yield b"y"

    assert recorded.run(app) == [("200 OK", PLAIN), b"x", b"y"]


def test_an_answer_without_a_body_has_a_head() -> None:
    assert Recorded().run(answering([])) == [("200 OK", PLAIN)]
    assert Recorded().run(answering([b""])) == [("200 OK", PLAIN)]


def test_what_is_written_comes_before_what_is_returned() -> None:
    def app(environ: dict[str, Any], start_response: Start) -> list[bytes]:
        write = start_response("200 OK", PLAIN)
        write(b"")
        write(b"written")
        return [b"returned"]

    assert Recorded().run(app) == [("200 OK", PLAIN), b"written", b"returned"]


def failing_page(blocks_before: list[bytes]) -> Application:
    """Fails after its blocks, and answers with an error page where it still can."""

    def app(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        try:
            yield from blocks_before
            raise RuntimeError("the page failed")
        except RuntimeError:
            start_response("500 Oops", PLAIN, sys.exc_info())
            yield b"sorry"

    return app


def test_an_error_page_replaces_a_head_that_has_not_left() -> None:
    assert Recorded().run(failing_page([b""])) == [("500 Oops", PLAIN), b"sorry"]
    with connect(failing_page([b""])) as answer:
        assert (answer.status, answer.read_all()) == (500, b"sorry")


def test_an_error_after_the_head_has_left_is_raised_again() -> None:
    recorded = Recorded()
    with pytest.raises(RuntimeError, match="the page failed"):
        recorded.run(failing_page([b"x"]))
    assert recorded.sent == [("200 OK", PLAIN), b"x"]


def start_twice(environ: dict[str, Any], start_response: Start) -> list[bytes]:
    start_response("200 OK", PLAIN)
    start_response("200 OK", PLAIN)
    return []


def never_start(environ: dict[str, Any], start_response: Start) -> list[bytes]:
    return []


def yield_before_start(environ: dict[str, Any], start_response: Start) -> list[bytes]:
    return [b"x"]


@pytest.mark.parametrize(
    ("app", "fault"),
    [
        (start_twice, "twice"),
        (never_start, "without a call of start_response"),
        (yield_before_start, "before it called start_response"),
        (answering(["text"]), "must be bytes, not str"),
    ],
)
def test_an_application_that_breaks_the_rules_is_an_error(app: Application, fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        Recorded().run(app)


def test_the_iterable_is_closed_once_however_it_ends() -> None:
    complete, failing, abandoned = (
        Blocks(b"x"),
        Blocks(b"x", RuntimeError("it failed")),
        Blocks(b"x", b"y"),
    )
    Recorded().run(answering(complete))
    with pytest.raises(RuntimeError, match="it failed"):
        Recorded().run(answering(failing))
    recorded = Recorded(leaves_after=2)
    assert recorded.run(answering(abandoned)) == [("200 OK", PLAIN), b"x"]
    assert [blocks.closed for blocks in (complete, failing, abandoned)] == [1, 1, 1]
