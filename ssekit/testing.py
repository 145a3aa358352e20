"""Tests of streams that end: ``with connect(app, "/clock") as stream: event = next(stream)``.

The application runs in a thread of this process, with no server and no socket.  Every wait is
bounded.  When the block ends, the client leaves, and the source ends as it would under a server.
"""

from __future__ import annotations

import contextlib
import io
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlsplit
from wsgiref.headers import Headers
from wsgiref.util import setup_testing_defaults

from ssekit import host
from ssekit.host.connection import Connection as Server
from ssekit.host.threads import ThreadClient
from ssekit.host.wsgi_loop import Application, Exchange
from ssekit.wire import Decoder, Event

__all__ = ["ReceivedStream", "connect"]

_SENT_AS_IT_IS = "%!$&'()*+,;=:@/?[]"
_OF_CGI = ("CONTENT_TYPE", "CONTENT_LENGTH")
_AHEAD = 64
"""Blocks that a source may be ahead of the test, as it may be ahead of a client's kernel."""


class ReceivedStream:
    """A client's side of one answer.

    Iterating yields the events as a browser would dispatch them.  ``status`` is a number,
    ``headers`` finds a field in any case, ``body`` holds the bytes received so far, and
    ``last_event_id`` is what a browser would send back.  Reading raises whatever the application
    raised.
    """

    def __init__(self, app: Application, environ: dict[str, Any], timeout: float) -> None:
        self.status = 0
        self.headers = Headers()
        self.body = b""
        self._timeout = timeout
        self._decoder = Decoder()
        self._events: list[Event] = []
        self._blocks: queue.Queue[bytes | None] = queue.Queue(_AHEAD)  # None is the end
        self._error: BaseException | None = None
        self._begun = threading.Event()
        self._client = _Client()
        self._client.connection = _Server(self._put)
        environ["ssekit.client"] = self._client
        self._thread = threading.Thread(target=self._run, args=(app, environ), daemon=True)
        self._thread.start()
        if not self._begun.wait(timeout):
            self.close()
            raise TimeoutError(f"the application has sent no headers within {timeout} s")
        if not self.status:
            self._raise_error()  # Else it is raised where the test reads that far.

    @property
    def last_event_id(self) -> str:
        """What a browser would send as ``Last-Event-ID`` when it comes back."""
        return self._decoder.last_event_id

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        """Return the next event.

        Raises TimeoutError if none comes in time, and whatever the application raised.
        """
        deadline = time.monotonic() + self._timeout
        while not self._events:
            if not self.read(max(deadline - time.monotonic(), 0)):
                raise StopIteration
        return self._events.pop(0)

    def read(self, timeout: float | None = None) -> bytes:
        """Return the next block of the body as bytes, or nothing at its end.

        Raises TimeoutError, and whatever the application raised.
        """
        try:
            block = self._blocks.get(timeout=self._timeout if timeout is None else timeout)
        except queue.Empty:
            raise TimeoutError(
                f"nothing came within {self._timeout} s; so far: {self.body!r}"
            ) from None
        if block is None:
            self._blocks.put(None)
            self._raise_error()
            return b""
        self.body += block
        self._events += self._decoder.feed(block)
        return block

    def read_all(self) -> bytes:
        """Return the whole body of an answer that ends.  Raises as `read` does."""
        while self.read():
            pass
        return self.body

    def close(self) -> None:
        """Disconnect, and wait for the source to end; a source that sleeps ends when it wakes.

        Raises nothing; what the source raised is raised where the test reads that far.
        """
        self._client.end(host.DISCONNECTED)
        self._thread.join(self._timeout)

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self, app: Application, environ: dict[str, Any]) -> None:
        try:
            Exchange(self._client, self._take_head, self._put).run(app, environ)
        except BaseException as error:
            self._error = error  # The test's thread raises it again.
        finally:
            self._begun.set()
            self._put(None)

    def _take_head(self, status: str, headers: list[tuple[str, str]]) -> None:
        self.status = int(status.split(maxsplit=1)[0])
        self.headers = Headers(list(headers))
        self._begun.set()

    def _put(self, block: bytes | None) -> None:
        while self._client.ended != host.DISCONNECTED:
            with contextlib.suppress(queue.Full):
                self._blocks.put(block, timeout=0.05)
                return
        with contextlib.suppress(queue.Full):
            self._blocks.put_nowait(block)


class _Client(ThreadClient):
    """Ends and sends heartbeats as under threads, where no socket has to be watched."""

    def attach(self, connection: Server | None) -> None:
        pass

    def detach(self) -> None:
        pass


class _Server(Server):
    """Lets a waiting source write its heartbeats."""

    transparent = True

    def __init__(self, put: Callable[[bytes], None]) -> None:
        self._put = put

    def direct(self, given: int) -> bool:
        return True

    def write(self, block: bytes) -> None:
        self._put(block)


@contextlib.contextmanager
def connect(
    app: Application,
    path: str = "/",
    *,
    last_event_id: str | None = None,
    headers: Iterable[tuple[str, str]] | Mapping[str, str] = (),
    timeout: float = 2.0,
) -> Iterator[ReceivedStream]:
    """Connect to a WSGI application as an EventSource would, and disconnect when the block ends.

    ``path`` may have a query.  ``last_event_id`` is sent as the header.  ``timeout`` bounds, in
    seconds, each wait; beyond it TimeoutError is raised.
    """
    parts = urlsplit(path)
    environ: dict[str, Any] = {
        "SCRIPT_NAME": "",
        # PEP 3333, "Unicode Issues": bytes shown as latin-1, the path's with its %xx resolved.
        "PATH_INFO": unquote_to_bytes(parts.path).decode("latin-1"),
        "QUERY_STRING": quote(parts.query, safe=_SENT_AS_IT_IS),
        "HTTP_ACCEPT": "text/event-stream",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
    }
    setup_testing_defaults(environ)
    if last_event_id is not None:
        environ["HTTP_LAST_EVENT_ID"] = last_event_id.encode().decode("latin-1")
    for name, value in headers.items() if isinstance(headers, Mapping) else headers:
        key = name.upper().replace("-", "_")
        environ[key if key in _OF_CGI else f"HTTP_{key}"] = value
    connection = ReceivedStream(app, environ, timeout)
    try:
        yield connection
    finally:
        connection.close()
