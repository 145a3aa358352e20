"""A source of events as a WSGI application.

`Stream` is the whole interface: a WSGI server, a framework and the hub meet a source through it.
It calls the source, turns its items into blocks, and lets `ssekit.host` say when to send a
heartbeat and when to end.  It knows no server and imports no framework; what may be a source, and
what it may yield, is `ssekit.source`'s to say.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ssekit import host, servers
from ssekit.errors import SSEError
from ssekit.limits import Admission, Limit, turned_away
from ssekit.negotiation import Answer, Headers, Offer, farewell, last_event_id
from ssekit.source import Source, check, encode, request_of, takes_request
from ssekit.timer import every
from ssekit.wire import HEARTBEAT, Event

__all__ = ["Stop", "Stream", "every", "last_event_id"]

StartResponse = Callable[..., Any]

LONGEST_SILENCE = 86_400.0
"""Seconds: as good as never, and no clock refuses to wait for it."""

log = logging.getLogger("ssekit.stream")
access = logging.getLogger("ssekit.access")


class Stop(Exception):
    """Raised by a source, when it is called, to end the client's reconnecting for good.

    It is answered with 204 No Content (HTML standard, 9.2.3).  The body of a generator function
    runs too late for that, when the headers have left: raise it in a function that returns the
    generator.
    """


class Stream:
    """A WSGI application that streams the events of ``source`` to each client.

    ``source`` is a list, or a callable that returns an iterable, called anew for every client; it
    gets the `werkzeug.Request` if it has a required positional parameter.  Items may be `Event`,
    ``str``, a JSON value (dict, list, number, bool), or None for "nothing now".  The callable runs
    before the headers leave, so an error in it is a 500, a werkzeug ``HTTPException`` is its own
    answer, and `Stop` a 204.

    ``heartbeat``: seconds without a byte after which a comment line is sent.
    ``retry``: milliseconds that a client waits before it connects again; None leaves it to it.
    ``headers``: further headers, as pairs.
    ``methods``: the methods that open the stream; another one is answered 405.
    ``origins``: a tuple of the origins that may read the stream across origins, with credentials,
    or ``"*"`` for all, without.

    Raises TypeError for an iterator, which clients would share, a bare ``str``, or a callable that
    needs more than the request.
    """

    def __init__(
        self,
        source: Source,
        *,
        heartbeat: float = 15.0,
        retry: int | None = None,
        headers: Iterable[tuple[str, str]] | Mapping[str, str] = (),
        methods: Iterable[str] = ("GET",),
        origins: Iterable[str] = (),
    ) -> None:
        check(source)
        if not heartbeat > 0:
            raise ValueError(f"heartbeat must be seconds above 0, not {heartbeat!r}")
        self._source = source
        self._wants_request = callable(source) and takes_request(source)
        self._heartbeat = min(heartbeat, LONGEST_SILENCE)
        self._retry = retry
        self._opening = HEARTBEAT if retry is None else Event(retry=retry).encode()
        self._offer = Offer(headers=headers, methods=methods, origins=origins)
        self._limit = Limit()
        self._body: Callable[..., Body] = Body
        if callable(source):
            functools.update_wrapper(self, source, updated=())  # its own attributes stay its own

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request (PEP 3333)."""
        answer = self._offer.answer(environ)
        if answer.streams:
            admission = self._limit.admit(environ)
            if admission is not None:
                return self._stream(environ, start_response, answer, admission)
            answer = turned_away(environ, self._offer.cors(environ))
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
            body = self._body(
                self._call(environ),
                host.client_of(environ, self._heartbeat),
                admission,
                path=str(environ.get("SCRIPT_NAME", "")) + str(environ.get("PATH_INFO", "")),
                opening=self._opening,
                retry=self._retry,
            )
            start_response(answer.status, answer.headers)
            return body
        except Stop:
            return self._offer.no_content(environ).give(environ, start_response)
        except Exception as error:
            if not _is_http_exception(error):
                raise
            cors = self._offer.cors(environ)  # Or a page of another origin cannot read why.

            def start(status: str, headers: Headers, *exc_info: Any) -> Any:
                return start_response(status, [*headers, *cors], *exc_info)

            return error(environ, start)  # type: ignore[no-any-return,operator]
        finally:
            if body is None:
                admission.end()

    def _call(self, environ: dict[str, Any]) -> Iterator[Any]:
        """Call the source.  What it raises has to reach the server as an error to answer."""
        try:
            return self._open(environ)
        except host.Ended:
            raise
        except (OSError, StopIteration, SystemExit) as error:
            # Servers take these for a client that has left, or for their own end.
            raise SSEError(f"the source failed: {error!r}") from error

    def _open(self, environ: dict[str, Any]) -> Iterator[Any]:
        """Return the source's items for one client."""
        if not callable(self._source):
            return iter(self._source)
        items = self._source(request_of(environ)) if self._wants_request else self._source()
        if isinstance(items, str | bytes | Mapping) or not isinstance(items, Iterable):
            raise TypeError(
                f"the source must return an iterable of events, not {type(items).__name__}"
            )
        return iter(items)


class Body:
    """The blocks of one client's stream, as the iterable that the server asks for them."""

    def __init__(
        self,
        items: Iterator[Any],
        client: host.Client,
        admission: Admission,
        *,
        path: str,
        opening: bytes,
        retry: int | None,
    ) -> None:
        self._items = items
        self.client = client
        self.admission = admission
        self.path = path
        self._opening = opening
        self.retry = retry
        self.connection: servers.Connection | None = None
        self._next: Callable[[], bytes] = self._open
        self.began = time.monotonic()
        self.events = 0
        self._why = host.LEFT

    def __iter__(self) -> Body:
        return self

    def __next__(self) -> bytes:
        block = self._next()
        self.client.wrote(block)
        return block

    def _open(self) -> bytes:
        # The headers leave with the first block, so it must not wait for the source.
        self._next = self._attach
        return self._opening

    def _attach(self) -> bytes:
        # By now the server has sent the opening, so it can be seen whether all of it has left.
        self._next = self._pull
        self.connection = servers.find(self)
        if not self._taken_over():
            self.client.attach(self.connection)
        return self._next()

    def _taken_over(self) -> bool:
        """Tell whether somebody else serves the client from here on."""
        return False

    def _move_on(self) -> None:
        """End the blocks, and nothing else: somebody else serves the client from here on."""
        self._next = _over
        self.client.close(self._items)
        self.client.detach()
        self.connection = None  # It has us: or both stay until the collector comes.

    def _pull(self) -> bytes:
        block = b""
        while not block:
            try:
                block = self._block()
            except StopIteration:
                return self._finish("source ended")
            except host.Ended as ended:
                return self._say_farewell(ended.reason)
            except SystemExit:
                return self._finish("source ended")  # Its own exit must not be the server's.
            except BaseException as error:
                if not host.failed(error):
                    raise
                late = _TOO_LATE if isinstance(error, Stop) or _is_http_exception(error) else ""
                log.exception("the source of %s failed; its stream ends%s", self.path, late)
                return self._say_farewell("source failed")
        return block

    def _block(self) -> bytes:
        """Return what the source's next item sends: nothing, where it has none and none is due."""
        block = encode(self.client.pull(self._items))
        if block:
            self.events += 1
            return block
        return self._heartbeat()

    def _heartbeat(self) -> bytes:
        return HEARTBEAT if self.client.beat_due() <= 0 else b""

    def _say_farewell(self, why: str) -> bytes:
        if why == host.LEFT:
            return self._finish(why)
        self._why = why
        self._next = self._finish
        return farewell(self.retry)

    def _finish(self, why: str | None = None) -> bytes:
        self._why = why or self._why
        self.close()
        return _over()

    def __del__(self) -> None:
        # Middleware that forgets to call close() must not keep a source alive.
        self.close()

    def close(self) -> None:
        """End the source; the server calls this at the end, also when the client has left."""
        if self._next is _over:
            return
        self._next = _over  # Nothing of ours refers to itself any more, so it is freed at once.
        try:
            self.client.close(self._items)
        except Exception:
            log.exception("the source of %s failed when it was closed", self.path)
        finally:
            self.client.detach()
            self.connection = None
            self.admission.end()
            log_ended(self.path, self.began, self.events, self.client.given, self._why)


def log_ended(path: str, began: float, events: int, size: int, why: str) -> None:
    """Log one line about a stream that has ended; ``began`` is on the monotonic clock."""
    if access.isEnabledFor(logging.INFO):
        access.info(
            "path=%s seconds=%.3f events=%d bytes=%d ended=%r",
            ascii(path)[1:-1],
            time.monotonic() - began,
            events,
            size,
            why,
        )


def _over() -> bytes:
    raise StopIteration


_TOO_LATE = (
    " (too late for an answer of its own: raise it in a function that returns the events, which is"
    " called before the headers leave)"
)


def _is_http_exception(error: BaseException) -> bool:
    # Without importing werkzeug: its HTTPException is a WSGI application with get_response.
    return callable(error) and hasattr(error, "get_response")
