"""A client that sees every byte: raw HTTP/1.x over a socket, decoded with ssekit's own decoder."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from email.message import Message
from email.parser import BytesParser
from urllib.parse import urlsplit

from ssekit import Decoder, Event


class Client:
    """One request and its answer as it comes; ``body`` holds every byte of the answer so far."""

    def __init__(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] = {},
        body: bytes = b"",
        version: str = "1.1",
        timeout: float = 10.0,
    ) -> None:
        parts = urlsplit(url)
        self.timeout = timeout
        self.socket = socket.create_connection(
            (parts.hostname or "127.0.0.1", parts.port or 80), timeout=timeout
        )
        self._buffer = b""
        self.body = b""
        self.ended = False
        """True once the answer has ended; ``cleanly`` tells whether with its last chunk."""
        self.cleanly = False
        self.decoder = Decoder()
        self.events: list[Event] = []
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = [f"{method} {path} HTTP/{version}", f"Host: {parts.netloc}"]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        lines += [f"{name}: {value}" for name, value in headers.items()]
        try:
            self.socket.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
            while b"\r\n\r\n" not in self._buffer:
                if not self._receive():
                    raise ConnectionError(f"no answer's headers, only {self._buffer!r}")
        except OSError:
            self.socket.close()  # Nobody else could: there is no client to close.
            raise
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        status, _, fields = head.partition(b"\r\n")
        self.status = int(status.split()[1])
        self.headers: Message = BytesParser().parsebytes(fields + b"\r\n\r\n", headersonly=True)
        self.chunked = self.headers.get("Transfer-Encoding") == "chunked"
        length = self.headers.get("Content-Length")
        self._left = int(length) if length else None
        if method == "HEAD" or self.status in (204, 304):
            self._left = 0
        self._absorb()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def _receive(self) -> bool:
        data = self.socket.recv(65536)
        self._buffer += data
        return bool(data)

    def _absorb(self) -> None:
        if self.chunked:
            while b"\r\n" in self._buffer and not self.ended:
                size, _, rest = self._buffer.partition(b"\r\n")
                length = int(size, 16)
                if len(rest) < length + 2:
                    break
                self._take(rest[:length])
                self._buffer = rest[length + 2 :]
                if not length:
                    self.ended = self.cleanly = True
        elif self._left is not None:
            self._take(self._buffer[: self._left])
            self._left -= len(self._buffer)
            self._buffer = b""
            if self._left <= 0:
                self.ended = self.cleanly = True
        else:
            self._take(self._buffer)
            self._buffer = b""

    def _take(self, data: bytes) -> None:
        self.body += data
        self.events += self.decoder.feed(data)

    def read(self, seconds: float | None = None) -> bool:
        """Wait for more bytes; false if none came in time or the answer has ended."""
        if self.ended:
            return False
        self.socket.settimeout(self.timeout if seconds is None else max(seconds, 0.001))
        try:
            more = self._receive()
        except TimeoutError:
            return False
        except ConnectionError:
            more = False
        if more:
            self._absorb()
        else:
            self.ended = True
        return not self.ended

    def wait(self, count: int, seconds: float | None = None) -> list[Event]:
        """Return the first ``count`` events; fails if they do not come in time."""
        deadline = time.monotonic() + (self.timeout if seconds is None else seconds)
        while len(self.events) < count:
            left = deadline - time.monotonic()
            if left <= 0 or self.ended:
                raise AssertionError(f"{count} events wanted, got {self.events}: {self.body!r}")
            self.read(left)
        return self.events[:count]

    def until_body(self, wanted: bytes, seconds: float | None = None) -> bytes:
        """Return the body once it contains ``wanted``."""
        deadline = time.monotonic() + (self.timeout if seconds is None else seconds)
        while wanted not in self.body:
            left = deadline - time.monotonic()
            if left <= 0 or self.ended:
                raise AssertionError(f"{wanted!r} wanted, got {self.body!r}")
            self.read(left)
        return self.body

    def until_end(self, seconds: float | None = None) -> bytes:
        """Read to the end of the answer and return its body."""
        deadline = time.monotonic() + (self.timeout if seconds is None else seconds)
        while not self.ended:
            left = deadline - time.monotonic()
            if left <= 0:
                raise AssertionError(f"the answer did not end: {self.body!r}")
            self.read(left)
        return self.body
