"""The blocks of one client's stream, from the opening to the closing retry."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

from ssekit import host
from ssekit.host import wsgi_servers
from ssekit.stream.admission import Admission
from ssekit.stream.response import closing_retry
from ssekit.stream.source import Stop, encode, is_http_exception
from ssekit.wire import HEARTBEAT

log = logging.getLogger("ssekit.stream")
streams = logging.getLogger("ssekit.streams")


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
        self.connection: wsgi_servers.Connection | None = None
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
        self.connection = wsgi_servers.find(self)
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
                return self._say_closing_retry(ended.reason)
            except SystemExit:
                return self._finish("source ended")  # Its own exit must not be the server's.
            except BaseException as error:
                if not host.failed(error):
                    raise
                late = _TOO_LATE if isinstance(error, Stop) or is_http_exception(error) else ""
                log.exception("the source of %s failed; its stream ends%s", self.path, late)
                return self._say_closing_retry("source failed")
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

    def _say_closing_retry(self, why: str) -> bytes:
        if why == host.LEFT:
            return self._finish(why)
        self._why = why
        self._next = self._finish
        return closing_retry(self.retry)

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
    if streams.isEnabledFor(logging.INFO):
        streams.info(
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
