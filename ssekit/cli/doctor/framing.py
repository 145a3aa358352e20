"""Where the body of an answer ends, and what is in it: RFC 9112, section 6.3, and gzip.

Pure: bytes in, bytes out.  The bytes are not trusted, so sizes are bounded.
"""

from __future__ import annotations

import re
import zlib
from contextlib import suppress
from typing import Protocol

from ssekit.cli.doctor.exchange import CLOSED, CUT, Exchange

BODY_LIMIT = 4 * 1024 * 1024
"""Bytes of a body; more is not read."""
_SIZE = re.compile(rb"[0-9A-Fa-f]{1,8}")


class BadAnswer(Exception):
    """Raised if the other end does not speak HTTP/1.1."""


class Framing(Protocol):
    """Where a body ends (RFC 9112, section 6.3)."""

    ended: bool
    end: str
    """What it means if the connection ends now."""

    def feed(self, data: bytes) -> bytes: ...


def framing_of(answer: Exchange) -> Framing:
    if answer.method == "HEAD" or answer.status in (204, 304):
        return _Length(0)
    if answer.get("Transfer-Encoding").strip().lower() == "chunked":
        return _Chunks()
    length = answer.get("Content-Length")
    if length.isascii() and length.isdigit() and len(length) <= 18:
        return _Length(int(length))
    return _UntilClosed()


class _Length:
    def __init__(self, length: int) -> None:
        self._remaining = length
        self.ended = length == 0
        self.end = CUT

    def feed(self, data: bytes) -> bytes:
        data = data[: self._remaining]
        self._remaining -= len(data)
        self.ended = self._remaining == 0
        return data


class _UntilClosed:
    ended = False
    end = CLOSED

    def feed(self, data: bytes) -> bytes:
        return data


class _Chunks:
    """RFC 9112, section 7.1."""

    end = CUT

    def __init__(self) -> None:
        self.ended = False
        self._buffer = b""
        self._remaining = 0  # of the chunk, with the line end after it

    def feed(self, data: bytes) -> bytes:
        self._buffer += data
        body = []
        while self._buffer and not self.ended:
            if self._remaining > 2:
                piece = self._buffer[: self._remaining - 2]
                body.append(piece)
                self._skip(len(piece))
            elif self._remaining:
                self._skip(min(self._remaining, len(self._buffer)))
            elif not self._begin_chunk():
                break
        return b"".join(body)

    def _skip(self, count: int) -> None:
        self._buffer = self._buffer[count:]
        self._remaining -= count

    def _begin_chunk(self) -> bool:
        line, found, rest = self._buffer.partition(b"\r\n")
        if not found:
            if len(line) > 1024:
                raise BadAnswer("the length of a chunk is too long")
            return False
        size = _SIZE.match(line)
        if size is None:
            raise BadAnswer(f"not the length of a chunk: {line[:20]!r}")
        self._buffer = rest
        self._remaining = int(size[0], 16) + 2
        self.ended = self._remaining == 2
        return True


class Inflate:
    """Decompresses gzip or zlib; a bomb is cut short, and broken bytes give nothing."""

    def __init__(self) -> None:
        self._inflator = zlib.decompressobj(zlib.MAX_WBITS | 32)
        self._made = 0

    def __call__(self, data: bytes) -> bytes:
        out = b""
        if data and self._made <= BODY_LIMIT:
            with suppress(zlib.error):
                out = self._inflator.decompress(data, BODY_LIMIT)
        self._made += len(out)
        return out
