"""The server's side of PEP 3333 for one request: call the application, pass its blocks on.

`ssekit.cgi` and `ssekit.testing` are servers in this sense.  The rules that every server has to
keep are here; how a head and a block travel is in the two functions that the server gives.
Source: PEP 3333, "The Server/Gateway Side", "The start_response() Callable" and "Buffering and
Streaming".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ssekit.host.client import DISCONNECTED, Client

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
Headers = list[tuple[str, str]]


class Exchange:
    """One request and its answer: `run` is called once."""

    def __init__(
        self,
        client: Client,
        send_head: Callable[[str, Headers], object],
        send: Callable[[bytes], object],
    ) -> None:
        self.begun = False
        """Whether the head has left, so that it cannot become another one any more."""
        self._client = client
        self._send_head = send_head
        self._send = send
        self._head: tuple[str, Headers] | None = None

    def run(self, app: Application, environ: dict[str, Any]) -> None:
        """Answer the request of ``environ``; stop early if the client has left.

        Raises what the application raises, and AssertionError where it breaks PEP 3333.
        """
        blocks = app(environ, self.start)
        try:
            for block in blocks:
                self.write(block)
                if self._client.ended == DISCONNECTED:
                    return
            self._begin()
        finally:
            # "The server must call close() at the end of the request, whether it was completed
            # normally or terminated early."
            close = getattr(blocks, "close", None)
            if close is not None:
                close()

    def start(self, status: str, headers: Headers, exc_info: Any = None) -> Callable[[bytes], None]:
        """``start_response``: the head leaves with the first block that is not empty."""
        if exc_info:
            try:
                if self.begun:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # The traceback has this frame: else both stay.
        elif self._head is not None:
            raise AssertionError("start_response was called twice without exc_info")
        self._head = status, list(headers)
        return self.write

    def write(self, block: bytes) -> None:
        """``write``: the block has left on return.  An empty block sends nothing, and is legal."""
        if not isinstance(block, bytes):
            raise AssertionError(f"a block must be bytes, not {type(block).__name__}")
        if self._head is None:
            raise AssertionError("the application gave a block before it called start_response")
        if block:
            self._begin()
            self._send(block)

    def _begin(self) -> None:
        if self._head is None:
            raise AssertionError("the application ended without a call of start_response")
        if not self.begun:
            self.begun = True
            self._send_head(*self._head)
