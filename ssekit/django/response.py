"""A stream as a Django response.

Django's handler gives the response itself to the WSGI server, and the server iterates it.  So a
response whose ``__iter__`` is the stream's own iterable reaches the server as if Django were not
there, and the connection can be taken over, whatever middleware has added to the headers.

When the server first asks for a block, all middleware and ``ATOMIC_REQUESTS`` are done.  There the
database connections that the request has opened are released, because Django itself would keep them
for as long as the stream is open.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.asgi import ASGIRequest
from django.db import connections
from django.http import HttpRequest
from django.http.response import HttpResponseBase

WSGI = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
View = Callable[..., Any]


class StreamResponse(HttpResponseBase):
    """The response that streams ``stream``, a `ssekit.Stream` or what ``hub.stream(...)`` returns.

    A request that does not open the stream (HEAD, another method, an Accept that excludes it, too
    many streams, a client that has to stay away) gets the stream's own answer: its status, headers
    and body are then those of this response.

    Raises ImproperlyConfigured under ASGI, where Django collects the whole answer of a synchronous
    stream before it sends anything.
    """

    streaming = True
    is_async = False

    def __init__(self, stream: WSGI, request: HttpRequest) -> None:
        refuse_asgi(request)
        super().__init__()
        del self.headers["Content-Type"]
        self._blocks: Iterable[bytes] = stream(request.environ, self._start)
        self._wrapped: Iterator[bytes] | None = None
        close = getattr(self._blocks, "close", None)
        if close is not None:
            self._resource_closers.append(close)

    def _start(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        """``start_response`` of PEP 3333."""
        code, _, self.reason_phrase = status.partition(" ")
        self.status_code = int(code)
        for name, value in headers:
            # Django joins no fields of one name: only Vary may come twice, and is a list.
            self.headers[name] = f"{self.headers[name]}, {value}" if name in self.headers else value
        return _write

    def __iter__(self) -> Iterator[bytes]:
        if self._wrapped is not None:
            return self._wrapped  # Some middleware changes the blocks.
        release_connections()
        return iter(self._blocks)

    @property
    def streaming_content(self) -> Iterator[bytes]:
        """The blocks, for middleware that wraps them; they are then iterated and not taken over."""
        return iter(self)

    @streaming_content.setter
    def streaming_content(self, blocks: Iterable[bytes]) -> None:
        self._wrapped = iter(blocks)

    def has_header(self, header: str) -> bool:
        """Tell whether the response has a header, and that it has a coding of its own.

        GZipMiddleware asks for that first and then leaves the response alone.  It would compress a
        stream without ever flushing, so that not one event would arrive.  Raises nothing.
        """
        return header.lower() == "content-encoding" or bool(super().has_header(header))

    __contains__ = has_header

    def __repr__(self) -> str:
        return f"<StreamResponse status_code={self.status_code}>"


def streaming(view: View) -> View:
    """Decorate a view that returns a stream, or any other response::

    @login_required
    @streaming
    def events(request):
        return hub.stream(f"user.{request.user.pk}")

    What the view raises is passed on.
    """

    @functools.wraps(view)
    def respond(request: HttpRequest, *arguments: Any, **options: Any) -> Any:
        found = view(request, *arguments, **options)
        if isinstance(found, HttpResponseBase) or not callable(found):
            return found
        return StreamResponse(found, request)

    return respond


def refuse_asgi(request: HttpRequest) -> None:
    """Raise ImproperlyConfigured for a request that came over ASGI."""
    if isinstance(request, ASGIRequest):
        raise ImproperlyConfigured(
            "ssekit streams over WSGI, and this request came over ASGI, where Django would hold "
            "the stream back until it ends; serve this project with gunicorn -k gevent and its "
            "wsgi.py"
        )


def release_connections() -> None:
    """Close the database connections of this thread or greenlet, except inside a transaction.

    That exception is a TestCase, whose connection all tests of a class share.  Closing returns a
    pooled connection to its pool.
    """
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()


def _write(_block: bytes) -> None:
    raise NotImplementedError("a stream gives its blocks as an iterable")
