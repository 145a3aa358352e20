"""A client that sees every byte: raw HTTP/1.x over a socket, decoded with ssekit's own decoder."""

from __future__ import annotations

import socket
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from email.message import Message
from email.parser import BytesParser
from urllib.parse import urlsplit

from ssekit import Decoder, Event


def after_opening(body: bytes) -> bytes:
    """Return what follows the first line of a stream: a retry of 2 to 4 s, different for each."""
    opening, end, rest = body.partition(b"\n")
    assert opening.startswith(b"retry: "), body[:100]
    assert end
    assert 2000 <= int(opening[7:]) <= 4000
    return rest


class Answer:
    """An answer as it comes; ``body`` holds every byte of it so far, and ``events`` what they say.

    Who brings the bytes is a subclass: it says how to `read` more.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.version = ""
        self.status = 0
        self.headers = Message()
        self.body = b""
        self.ended = False
        """True once the answer has ended."""
        self.decoder = Decoder()
        self.events: list[Event] = []
        self._unpack: Callable[[bytes], bytes] = bytes

    def read(self, seconds: float | None = None) -> bool:
        """Wait for more bytes; false if none came in time or the answer has ended."""
        raise NotImplementedError

    def wait(self, count: int, seconds: float | None = None) -> list[Event]:
        """Return the first ``count`` events; fails if they do not come in time."""
        self._until(lambda: len(self.events) >= count, f"{count} events", seconds)
        return self.events[:count]

    def until_body(self, wanted: bytes, seconds: float | None = None) -> bytes:
        """Return the body once it contains ``wanted``."""
        self._until(lambda: wanted in self.body, repr(wanted), seconds)
        return self.body

    def until_end(self, seconds: float | None = None) -> bytes:
        """Read to the end of the answer and return its body."""
        self._until(lambda: self.ended, "the end", seconds)
        return self.body

    def _until(self, done: Callable[[], bool], wanted: str, seconds: float | None) -> None:
        deadline = time.monotonic() + (self.timeout if seconds is None else seconds)
        while not done():
            left = deadline - time.monotonic()
            if left <= 0 or self.ended:
                raise AssertionError(f"{wanted} wanted, got {self.events}: {self.body!r}")
            self.read(left)

    def _take_head(self, head: bytes) -> None:
        line, _, fields = head.partition(b"\r\n")
        version, status, *_ = line.decode("latin-1").split()
        self.version, self.status = version.removeprefix("HTTP/"), int(status)
        self.headers = BytesParser().parsebytes(fields + b"\r\n\r\n", headersonly=True)
        if self.headers.get("Content-Encoding") == "gzip":
            self._unpack = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress

    def _take(self, data: bytes) -> None:
        data = self._unpack(data)
        self.body += data
        self.events += self.decoder.feed(data)


class Client(Answer):
    """One request and its answer."""

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
        super().__init__(timeout)
        parts = urlsplit(url)
        self.socket = socket.create_connection(
            (parts.hostname or "127.0.0.1", parts.port or 80), timeout=timeout
        )
        self._buffer = b""
        self.cleanly = False
        """True once the answer has ended as its framing says."""
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
        self._take_head(head)
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

    def until_closing_retry(self, seconds: float | None = None) -> None:
        """Read to the end, which has to be a clean one, after a line that says when to return."""
        *_, last, end = self.until_end(seconds).lower().split(b"\n")
        assert self.cleanly, "the answer was cut off"
        assert (last[:7], end) == (b"retry: ", b""), f"the last line is {last + end!r}"

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

    def read(self, seconds: float | None = None) -> bool:
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


class Clients(ExitStack):
    """Clients that are closed together."""

    def join(self, count: int, *urls: str, first: bytes = b"stream-open") -> list[Client]:
        """Open so many connections, to each URL in turn, and wait for the first that they get."""
        joined = [self.enter_context(Client(urls[n % len(urls)], timeout=30)) for n in range(count)]
        for client in joined:
            client.until_body(first)
        return joined
