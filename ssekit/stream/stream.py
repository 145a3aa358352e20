"""A source of events as a WSGI application.

`Stream` is the whole interface: a WSGI server, a framework and the hub meet a source through it.
It calls the source, turns its items into blocks, and lets `ssekit.host` say when to send a
heartbeat and when to end.  It knows no server and imports no framework; what may be a source, and
what it may yield, is `ssekit.stream.source`'s to say.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ssekit import host
from ssekit.errors import SSEError
from ssekit.stream.admission import Admission, Overloaded, rejection
from ssekit.stream.blocks import Blocks, Opener
from ssekit.stream.body import Body
from ssekit.stream.delivery import Delivery
from ssekit.stream.open import OpenStream
from ssekit.stream.response import Answer, Headers, Offer, misreads_an_end, opening
from ssekit.stream.source import Source, SourceOpener, Stop, is_http_exception
from ssekit.stream.ticking import Tick, TickOpener

StartResponse = Callable[..., Any]

_PLAIN = Offer()
LONGEST_SILENCE = 86_400.0
"""Seconds: as long as never, and every clock can wait for it."""


class Stream:
    """A WSGI application that streams the events of ``source`` to each client.

    ``source`` is a list, or a callable that returns an iterable, called for each client; it
    gets the `werkzeug.Request` if it has a required positional parameter.  Items may be `Event`,
    ``str``, a JSON value (dict, list, number, bool), or None for "nothing now".  The callable runs
    before the headers leave, so an error in it is a 500, a werkzeug ``HTTPException`` is its own
    answer, and `Stop` a 204.

    ``heartbeat``: seconds without a byte after which a comment line is sent.
    ``retry``: milliseconds that a client waits before it connects again; None is 2,000 to 4,000,
    different for each client, so that not all come back at once.
    ``headers``: further headers, as pairs.
    ``methods``: the methods that open the stream; another one is answered 405.
    ``origins``: a tuple of the origins that may read the stream across origins, with credentials,
    or ``"*"`` for all, without.

    Raises TypeError for an iterator, which clients would share, a bare ``str``, or a callable that
    needs more than the request.
    """

    def __init__(
        self,
        source: Source | Opener,
        *,
        heartbeat: float = 15.0,
        retry: int | None = None,
        headers: Iterable[tuple[str, str]] | Mapping[str, str] = (),
        methods: Iterable[str] = ("GET",),
        origins: Iterable[str] = (),
    ) -> None:
        self._opener = source if isinstance(source, Opener) else SourceOpener(source)
        if not heartbeat > 0:
            raise ValueError(f"heartbeat must be seconds above 0, not {heartbeat!r}")
        self._heartbeat = min(heartbeat, LONGEST_SILENCE)
        self._retry = retry
        host.prepare()
        if retry is not None:
            opening(retry)  # An invalid one is an error now.
        if (headers, methods, origins) == ((), ("GET",), ()):
            self._offer = _PLAIN  # A stream may be made for each request.
        else:
            self._offer = Offer(headers=headers, methods=methods, origins=origins)
        if callable(source):
            functools.update_wrapper(self, source, updated=())  # its own attributes stay its own

    @classmethod
    def every(cls, seconds: float, **options: Any) -> Callable[[Callable[[Tick], Any]], Stream]:
        """Make a stream of a function that is called for each client every ``seconds``.

        ::

            @Stream.every(1.0)
            def clock(tick):
                return {"number": tick.number}

        The function returns an item, or None for nothing; it gets a `Tick`, which has the tick's
        ``number`` from 0, the ``request``, the ``last_event_id``, and room for attributes of your
        own.  The first tick comes at once, then they come without drift, and missed ones are
        skipped.  `Stop` raised in it ends the stream.  The options are those of `Stream`.

        Under gunicorn's gevent worker such a stream needs no greenlet, and is the cheapest way to
        send each client something of its own now and then.  What the function sets in context
        variables is shared with other clients.

        Raises ValueError if ``seconds`` is not above 0.
        """

        def decorate(function: Callable[[Tick], Any]) -> Stream:
            stream = cls(TickOpener(function, seconds), **options)
            functools.update_wrapper(stream, function, updated=())
            return stream

        return decorate

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request (PEP 3333)."""
        answer = self._offer.answer(environ)
        if answer.streams:
            admission = self._opener.limit.admit(environ)
            if admission is not None:
                try:
                    return self._stream(environ, start_response, answer, admission)
                except Overloaded as error:
                    self._opener.limit.reject(environ, str(error) or "overloaded")
            answer = rejection(environ, self._offer.cors(environ))
        return answer.give(environ, start_response)

    def _stream(
        self,
        environ: dict[str, Any],
        start_response: StartResponse,
        answer: Answer,
        admission: Admission,
    ) -> Iterable[bytes]:
        body = None
        try:
            blocks = self._open(environ)
            stream = OpenStream(
                environ,
                admission,
                heartbeat=self._heartbeat,
                retry=self._retry,
                counts=self._opener.limit.counts,
                subject=blocks.subject,
                cuts=self._opener.cuts or misreads_an_end(environ),
            )
            body = Body(Delivery(stream, blocks), opening(self._retry))
            start_response(answer.status, answer.headers)
            return body
        except Stop:
            return self._offer.no_content(environ).give(environ, start_response)
        except Exception as error:
            if isinstance(error, Overloaded) or not is_http_exception(error):
                raise
            cors = self._offer.cors(environ)  # Or a page of another origin cannot read why.

            def start(status: str, headers: Headers, *exc_info: Any) -> Any:
                return start_response(status, [*headers, *cors], *exc_info)

            return error(environ, start)  # type: ignore[no-any-return,operator]
        finally:
            if body is None:
                admission.end()

    def _open(self, environ: dict[str, Any]) -> Blocks:
        """Open the stream.  What that raises has to reach the server as an error to answer."""
        try:
            return self._opener.open(environ)
        except host.Ended:
            raise
        except (OSError, StopIteration, SystemExit) as error:
            # Servers take these for a client that has left, or for their own end.
            raise SSEError(f"the source failed: {error!r}") from error
