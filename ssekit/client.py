"""Listening to a stream over HTTP, and coming back to it: an EventSource for Python.

`listen` returns a `Listener`, an iterator of `ssekit.Event` that follows the HTML standard's
section 9.2 (https://html.spec.whatwg.org/#server-sent-events).  A lost connection is made again,
with ``Last-Event-ID``; what cannot become a stream by trying again is an error; 204 is the end.
This module decides when to connect, wait, give up and end.  It leaves HTTP to httpx (the
``client`` extra) and the format to `ssekit.wire`, and knows nothing of hubs or of what events
mean.  Nothing runs in the background: the work is done while the caller waits for the next event,
so it is the same in a thread, in a greenlet under gevent's monkey patching, and in a plain script.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from functools import cache
from types import TracebackType
from typing import Any

import ssekit
from ssekit.errors import SSEError
from ssekit.host.backoff import Backoff, jittered
from ssekit.wire import Decoder, Event

__all__ = ["Listener", "StreamRefused", "listen"]

try:
    import httpx
except ImportError as error:
    raise ImportError(
        "ssekit.client needs httpx: pip install 'ssekit[client]'", name="httpx"
    ) from error

logger = logging.getLogger(__name__)

RETRY = 3.0
"""Seconds before connecting again where the stream names none, as Chromium does."""
IDLE = 50.0
"""Seconds of silence that count as a lost connection: three missed heartbeats of 15 s."""
LIMIT = 16 * 1024 * 1024
"""Bytes of one event: far above any real one, far below what hurts."""
CONNECT = 10.0  # seconds to connect and to send the request
REDIRECTS = 20  # the bound of the Fetch standard
BACKOFF_FIRST, BACKOFF_LAST = 0.1, 30.0  # seconds between the beginnings of two fruitless attempts
LONGEST_WAIT = 86_400.0  # a stream may ask for more than a clock can wait
OPENED = (".connect_tcp.complete", ".connect_unix_socket.complete", ".start_tls.complete")

HeaderPairs = Mapping[str, str] | Sequence[tuple[str, str]]


class StreamRefused(SSEError):
    """Raised for an answer that is not an event stream: trying again would not make it one.

    ``status`` is None where no answer could be had at all, for instance from a server whose
    certificate is wrong.  9.2.3 calls this "fail the connection".
    """

    def __init__(
        self, message: str, *, url: str, status: int | None = None, content_type: str | None = None
    ) -> None:
        super().__init__(message)
        self.url = url
        self.status = status
        self.content_type = content_type


def listen(
    url: str,
    *,
    last_event_id: str | None = None,
    headers: HeaderPairs = (),
    timeout: float = IDLE,
    retry: float = RETRY,
    limit: int = LIMIT,
    client: httpx.Client | None = None,
    tap: Callable[[bytes], object] | None = None,
) -> Listener:
    """Return an iterator of the events of the stream at ``url``, across lost connections.

    ``last_event_id``: resume after this event; what the server still has comes first.
    ``headers``: sent with each request, for instance ``{"Authorization": "Bearer ..."}``.
    ``timeout``: seconds without a byte, a heartbeat included, after which the connection counts
    as lost and is made again.
    ``retry``: seconds before connecting again, until the stream says otherwise.  Attempts that
    bring no event come at growing intervals, up to 30 s; up to a quarter is added at random.
    ``limit``: bytes of one event.
    ``client``: an `httpx.Client` of your own, for certificates, proxies, authentication or a unix
    socket; it is not closed.
    ``tap``: called with the bytes of the stream as they come, before their events are returned.

    Raises ValueError for a ``timeout``, ``retry`` or ``limit`` that is not a number in its range.

    Iterating ends when the server answers 204 or `Listener.close` is called.  It raises
    `StreamRefused` for another status than 200, another type than ``text/event-stream``, too many
    redirects or a wrong certificate, and `InvalidEvent` for an event longer than ``limit``.
    Lost connections are logged (logger ``ssekit.client``, level WARNING) and raise nothing.
    """
    bounds: tuple[tuple[str, float, float], ...]
    bounds = ("timeout", timeout, 0.001), ("retry", retry, 0), ("limit", limit, 1)
    for name, value, least in bounds:
        if not value >= least:  # nan is not, either
            raise ValueError(f"{name} must be at least {least:g}, not {value!r}")
    return Listener(url, last_event_id or "", headers, timeout, retry, limit, client, tap)


@cache
def _tls() -> ssl.SSLContext:
    """One for all listeners: reading the certificates costs some 50 ms each time."""
    return httpx.create_ssl_context()


class Listener:
    """The events of one stream; made by `listen`.  Closes itself at the end of a ``with`` block.

    Iterating raises what `listen` says.
    """

    def __init__(  # noqa: PLR0917 - `listen` is the one that calls it
        self,
        url: str,
        last_event_id: str,
        headers: HeaderPairs,
        timeout: float,
        retry: float,
        limit: int,
        client: httpx.Client | None,
        tap: Callable[[bytes], object] | None,
    ) -> None:
        Event(id=last_event_id).encode()  # refuses what a header could not carry either
        self.url = url
        self.last_event_id = last_event_id
        """The id to resume from: that of the last event returned."""
        self.retry = retry
        """Seconds before connecting again, as the stream asked last."""
        self._headers = httpx.Headers(
            {
                "Accept": "text/event-stream",
                "Accept-Encoding": "identity",  # a compressor may hold events back
                "Cache-Control": "no-store",
                "User-Agent": f"ssekit/{ssekit.__version__}",
            }
        )
        self._headers.update(httpx.Headers(headers, encoding="utf-8"))
        self._timeout = httpx.Timeout(CONNECT, read=min(timeout, LONGEST_WAIT))
        self._limit = limit
        self._client = client
        self._tap = tap
        # Its failures are attempts in a row that brought no event.
        self._backoff = Backoff(BACKOFF_FIRST, BACKOFF_LAST)
        self._closed = threading.Event()
        self._socket: socket.socket | None = None
        self._events = self._run()

    def __iter__(self) -> Listener:
        return self

    def __next__(self) -> Event:
        try:
            return next(self._events)
        except ValueError:
            # Another thread is inside the generator, which it closes.
            if self._closed.is_set():
                raise StopIteration from None
            raise

    def __enter__(self) -> Listener:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the stream, from any thread or greenlet: a wait for the next event ends at once.

        Raises nothing, also when called again.
        """
        self._closed.set()
        self._shut()
        # ValueError: another thread is inside the generator; it finds the socket shut, and ends.
        with suppress(ValueError):
            self._events.close()

    def _run(self) -> Generator[Event, None, None]:
        with ExitStack() as stack:
            client = self._client or stack.enter_context(httpx.Client(verify=_tls()))
            while not self._closed.is_set():
                began = time.monotonic()
                self._backoff.failures += 1
                reason = "the stream ended"
                try:
                    yield from self._attempt(client)
                except httpx.TransportError as error:
                    if not self._closed.is_set():
                        reason = self._explain(error)
                finally:
                    self._socket = None
                if not self._closed.is_set():
                    self._wait(reason, time.monotonic() - began)

    def _attempt(self, client: httpx.Client) -> Generator[Event, None, None]:
        """Connect once and return the events until the connection ends or fails."""
        with self._request(client) as response:
            if response.status_code == 204:
                self._closed.set()
                return
            self._check(response)
            decoder = Decoder(limit=self._limit, last_event_id=self.last_event_id)
            for chunk in response.iter_raw():  # the bytes of one read, as soon as it returns
                if self._tap is not None:
                    self._tap(chunk)
                events = decoder.feed(chunk)
                if decoder.retry is not None:
                    self.retry = decoder.retry / 1000
                for event in events:
                    self._backoff.reset()
                    self.last_event_id = event.id or ""
                    yield event
                self.last_event_id = decoder.last_event_id  # an id without data counts too

    def _request(self, client: httpx.Client) -> closing[httpx.Response]:
        headers = httpx.Headers(self._headers)
        if last_event_id := self.last_event_id.strip():  # a header's value has no outer space
            raw = (b"Last-Event-ID", last_event_id.encode())  # 9.2.3: as UTF-8
            headers = httpx.Headers([*headers.raw, raw])
        try:
            request = client.build_request(
                "GET",
                self.url,
                headers=headers,
                timeout=self._timeout,
                extensions={"trace": self._watch},
            )
            if (
                request.url.port or 0
            ) > 65535:  # the system would connect to another port, modulo 65536
                raise httpx.InvalidURL(f"Invalid port: {request.url.port}")
        except httpx.InvalidURL as error:
            raise StreamRefused(f"{self.url} is no address: {error}", url=self.url) from error
        for _ in range(REDIRECTS + 1):
            response = client.send(request, stream=True, follow_redirects=False)
            if response.next_request is None:
                return closing(response)
            request = response.next_request
            response.close()  # unread: its body may be endless
        raise StreamRefused(f"{self.url} redirects more than {REDIRECTS} times", url=self.url)

    def _check(self, response: httpx.Response) -> None:
        """Let only an event stream pass; 9.2.3 asks for the status 200 and the type."""
        status = response.status_code
        kind = response.headers.get("Content-Type")
        coding = response.headers.get("Content-Encoding", "identity")
        if status != 200:
            fault = f"{status} {response.reason_phrase}".rstrip()
        elif (kind or "").partition(";")[0].strip().lower() != "text/event-stream":
            fault = f"{kind or 'no Content-Type'} instead of text/event-stream"
        elif coding.lower() != "identity":
            fault = f"a stream compressed with {coding}, which was not asked for"
        else:
            return
        url = str(response.url)
        raise StreamRefused(f"{url} answers {fault}", url=url, status=status, content_type=kind)

    def _explain(self, error: httpx.TransportError) -> str:
        """Return why a connection was lost; raise where another attempt would end the same."""
        if isinstance(error, httpx.ReadTimeout):
            return f"nothing came for {self._timeout.read:g} s"
        reason = str(error) or type(error).__name__
        # 9.2.3: try again "unless the user agent knows that to be futile".
        futile: BaseException | None = error
        while futile is not None:
            if isinstance(
                futile,
                httpx.LocalProtocolError | httpx.UnsupportedProtocol | ssl.SSLCertVerificationError,
            ):
                raise StreamRefused(f"{self.url}: {reason}", url=self.url) from error
            futile = futile.__cause__ or futile.__context__
        return reason

    def _wait(self, reason: str, lasted: float) -> None:
        """Wait before the next attempt: ``retry``, or longer after attempts that bring nothing."""
        failed = self._backoff.failures > 0
        wait = max(self.retry, self._backoff.length - lasted if failed else 0.0)
        wait = min(jittered(wait, 1.0, 1.25), LONGEST_WAIT)
        logger.warning("%s: %s; connecting again in %.1f s", self.url, reason, wait)
        self._closed.wait(wait)

    def _watch(self, name: str, info: dict[str, Any]) -> None:
        """Keep the socket as soon as there is one, so that `close` can end any wait on it."""
        if name.endswith(OPENED):
            self._socket = info["return_value"].get_extra_info("socket")
            if self._closed.is_set():
                self._shut()

    def _shut(self) -> None:
        """End reading in whichever thread reads: closing a socket would not wake it."""
        if self._socket is not None:
            with suppress(OSError):  # it may be closed already
                # Not SSLSocket.shutdown, which takes the TLS state from under the reader.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
