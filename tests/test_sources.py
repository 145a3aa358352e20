"""What may be a source, what it gets, and what it may yield."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from werkzeug import Request

from ssekit import Event, Stream
from ssekit.testing import connect


def test_every_kind_of_item_is_sent() -> None:
    source: list[Any] = ["text", {"a": 1}, [1], 7, True, None, Event("x", "named", "9"), Event()]
    with connect(Stream(source)) as stream:
        assert stream.status == 200
        assert list(stream) == [
            Event("text", "message", ""),
            Event('{"a":1}', "message", ""),
            Event("[1]", "message", ""),
            Event("7", "message", ""),
            Event("true", "message", ""),
            Event("x", "named", "9"),
        ]


def test_a_callable_is_called_for_each_client_and_gets_the_request_if_it_wants_it() -> None:
    def with_request(request: Any, limit: int = 5) -> list[Any]:
        return [request.path, request.args["a"], limit]

    for _ in range(2):
        with connect(Stream(with_request), "/here?a=b") as stream:
            assert [event.data for event in stream] == ["/here", "b", "5"]
    with connect(Stream(lambda: ["no request"])) as stream:
        assert next(stream).data == "no request"


def test_whatever_is_callable_can_be_a_source() -> None:
    class Room:
        def __init__(self) -> None:
            self._source = self._retry = self._heartbeat = self._offer = "the room's own"

        def __call__(self, request: Any) -> list[str]:
            return [request.path]

        def method(self, request: Any, *rest: str, **more: str) -> list[str]:
            return [request.path, *rest, *more]

    for source in (Room(), Room().method, partial(Room().method), partial(Room().method, more="")):
        with connect(Stream(source), "/here") as stream:
            assert next(stream).data == "/here"
    with connect(Stream(partial(Room().method, Request({})))) as stream:
        assert stream.status == 200
    with connect(Stream(lambda request=None, *rest: [request])) as stream:
        assert list(stream) == []


def test_a_stream_decorates_a_function() -> None:
    @Stream
    def greeting() -> Iterator[str]:
        """Say hello."""
        yield "hello"

    assert (greeting.__name__, greeting.__doc__) == ("greeting", "Say hello.")  # type: ignore[attr-defined]
    with connect(greeting) as stream:
        assert next(stream).data == "hello"


async def coroutine() -> None: ...


def needs_a_name(*, name: str) -> list[str]:
    return [name]


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (iter(["x"]), "share this one iterator"),
        ((letter for letter in "x"), "share this one iterator"),
        ("text", "not a str"),
        (b"bytes", "not a bytes"),
        ({"a": 1}, "not a dict"),
        (5, "not a int"),
        (coroutine, "not async"),
        (lambda request, room: [], "needs more: request, room"),
        (needs_a_name, "needs more: name"),
    ],
)
def test_a_source_that_cannot_be_one_is_refused(source: Any, why: str) -> None:
    with pytest.raises(TypeError, match=why):
        Stream(source)


@pytest.mark.parametrize("returned", ["text", b"bytes", {"a": 1}, None, 5])
def test_what_a_callable_returns_must_be_an_iterable_of_events(returned: Any) -> None:
    with (
        pytest.raises(TypeError, match="must return an iterable"),
        connect(Stream(lambda: returned)),
    ):
        pass
