"""What a source of events may be, what it gets, and what it may yield.

What can never work is an error of the author, when the stream is made, and not of each client.
werkzeug is imported only where a request is wanted.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ssekit import host
from ssekit.errors import InvalidEvent, SSEError
from ssekit.stream.admission import Limit
from ssekit.stream.blocks import Blocks, Opener
from ssekit.wire import Event, encode_text

Source = Callable[..., Iterable[Any]] | list[Any] | tuple[Any, ...]


class SourceOpener(Opener):
    """Opens a source, anew for each client.  Raises TypeError for what cannot be one."""

    def __init__(self, source: Source) -> None:
        check(source)
        self.limit = Limit()
        self._source = source
        self._wants_request = callable(source) and takes_request(source)

    def open(self, environ: dict[str, Any]) -> Blocks:
        """Call the source."""
        return SourceBlocks(self._items(environ), waits=callable(self._source))

    def _items(self, environ: dict[str, Any]) -> Iterator[Any]:
        if not callable(self._source):
            return iter(self._source)
        items = self._source(request_of(environ)) if self._wants_request else self._source()
        if isinstance(items, str | bytes | Mapping) or not isinstance(items, Iterable):
            raise TypeError(
                f"the source must return an iterable of events, not {type(items).__name__}"
            )
        return iter(items)


class SourceBlocks(Blocks):
    """The items of a source, each encoded as a block."""

    def __init__(self, items: Iterator[Any], waits: bool) -> None:
        self._items = items
        self.waits = waits

    def next_block(self, client: host.Client) -> tuple[int, bytes]:
        return client.next_of(self._items, encode)

    def close(self, client: host.Client) -> None:
        client.close(self._items)


def check(source: object) -> None:
    """Raise TypeError for what can be no source of several clients."""
    if isinstance(source, str | bytes | Mapping):
        raise TypeError(
            f"a source is a list or a callable that returns events, not a {type(source).__name__}"
        )
    if isinstance(source, Iterator):
        raise TypeError(
            "all clients would share this one iterator: give the function that makes it"
        )
    if inspect.iscoroutinefunction(source) or inspect.isasyncgenfunction(source):
        raise TypeError("a source is plain, synchronous Python, not async")
    if not callable(source) and not isinstance(source, Iterable):
        raise TypeError(f"a source is a list or a callable, not a {type(source).__name__}")


def takes_request(source: Callable[..., Any]) -> bool:
    """Tell whether a callable has a required positional parameter, which is the request.

    Raises TypeError if it needs more than that.
    """
    try:
        parameters = inspect.signature(source).parameters.values()
    except ValueError:
        return False  # Some built-in callables do not tell.
    needed = [
        parameter
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if len(needed) > 1 or any(parameter.kind is parameter.KEYWORD_ONLY for parameter in needed):
        names = ", ".join(parameter.name for parameter in needed)
        raise TypeError(f"a source gets at most the request, and this one needs more: {names}")
    return bool(needed)


def request_of(environ: dict[str, Any]) -> Any:
    """Return the `werkzeug.Request` of an environ; raises `SSEError` where werkzeug is missing."""
    return _request_class()(environ)


@functools.cache
def _request_class() -> type[Any]:
    try:
        from werkzeug import Request
    except ImportError as error:
        raise SSEError(
            "a source that takes the request needs werkzeug: pip install werkzeug"
        ) from error
    return Request


def encode(item: object) -> bytes:
    """Return an item of a source as a block; empty where it sends nothing."""
    if isinstance(item, Event):
        return item.encode()
    if type(item) is str:
        return encode_text(item)
    if isinstance(item, bytes | bytearray):
        raise InvalidEvent("a source must yield str, a JSON value or Event(data), not bytes")
    return b"" if item is None else Event(item).encode()


class Stop(Exception):
    """Raised by a source, when it is called, to end the client's reconnecting permanently.

    It is answered with 204 No Content (HTML standard, 9.2.3).  The body of a generator function
    runs too late for that, when the headers have left: raise it in a function that returns the
    generator.
    """


def is_http_exception(error: BaseException) -> bool:
    # Without importing werkzeug: its HTTPException is a WSGI application with get_response.
    return callable(error) and hasattr(error, "get_response")
