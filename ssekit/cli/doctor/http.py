"""One HTTP/1.1 request, watched closely: the doctor needs what an HTTP library hides.

When did the headers arrive, and each block?  How was the body framed?  Did it end, or was it cut?
So this module speaks HTTP over a plain or TLS socket.  The other end is not trusted: headers, body
and waiting are bounded, and whatever it does becomes an `Exchange`, not an exception.
"""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from urllib.parse import SplitResult

import ssekit
from ssekit.cli.doctor.exchange import (
    BAD_CERTIFICATE,
    CUT,
    ENDED,
    FULL,
    OPEN,
    Arrival,
    Exchange,
    Headers,
)
from ssekit.cli.doctor.framing import BODY_LIMIT, BadAnswer, Framing, Inflate, framing_of
from ssekit.cli.doctor.reaching import CONNECT, check_url, connect

HEAD_LIMIT = 64 * 1024
BEAT = 0.25
"""Seconds between two calls that show the user progress."""
CHECK_EVERY = 0.05
"""Seconds between two checks of whether enough has arrived, which get slower with its size."""
MAX_ARRIVALS = 20_000

_STATUS = re.compile(rb"(HTTP/1\.[01]) ([1-5][0-9][0-9])(?: .*)?")

EVENT_SOURCE = (
    ("Accept", "text/event-stream"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Accept-Language", "en"),
    ("Cache-Control", "no-cache"),
    ("User-Agent", f"Mozilla/5.0 (compatible; ssekit-doctor/{ssekit.__version__})"),
)
"""What a browser's EventSource sends."""


@dataclass(frozen=True)
class Manner:
    """How to ask, the same for every request of one examination.

    ``headers`` are sent with each request, ``insecure`` accepts any certificate, and ``beat`` is
    called every `BEAT` seconds while waiting.
    """

    headers: Headers = ()
    insecure: bool = False
    beat: Callable[[], None] = lambda: None


def ask(
    url: str,
    seconds: float,
    manner: Manner,
    *,
    method: str = "GET",
    headers: Iterable[tuple[str, str]] = (),
    enough: Callable[[Exchange], bool] = lambda _: False,
) -> Exchange:
    """Send a request and watch its answer for at most ``seconds``.

    ``enough`` decides after each arrival whether to disconnect early.  Raises only `BadURL`.
    """
    parts = check_url(url)
    deadline = time.monotonic() + seconds
    try:
        connection = connect(parts, manner.insecure, min(seconds, CONNECT), ["http/1.1"])
    except (OSError, UnicodeError) as error:
        return Exchange(url, method, failure=_reason(error))
    with connection:
        try:
            connection.sendall(_request(parts, method, [*manner.headers, *headers]))
        except OSError as error:
            return Exchange(url, method, failure=_reason(error))
        return _Answer(url, method).watch(connection, deadline, manner.beat, enough)


def offers_http2(url: str, seconds: float, manner: Manner) -> bool | None:
    """Tell whether the server offers HTTP/2 in TLS; None without TLS."""
    parts = check_url(url)
    if parts.scheme != "https":
        return None
    try:
        with connect(parts, manner.insecure, seconds, ["h2", "http/1.1"]) as connection:
            assert isinstance(connection, ssl.SSLSocket)  # noqa: S101 - for the type checker
            return connection.selected_alpn_protocol() == "h2"
    except (OSError, UnicodeError):
        return None


def _request(parts: SplitResult, method: str, headers: Sequence[tuple[str, str]]) -> bytes:
    own = {name.lower() for name, _ in headers}
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = [f"{method} {path} HTTP/1.1"]
    if "host" not in own:
        lines.append(f"Host: {parts.netloc.rpartition('@')[2]}")
    if method == "POST":
        lines.append("Content-Length: 0")
    lines += [f"{name}: {value}" for name, value in EVENT_SOURCE if name.lower() not in own]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode("utf-8")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{BAD_CERTIFICATE}: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


class _Answer:
    """The answer on one connection, parsed as it arrives."""

    def __init__(self, url: str, method: str) -> None:
        self._exchange = Exchange(url, method, sent=time.time())
        self._began = time.monotonic()
        self._buffer = b""
        self._arrivals: list[Arrival] = []
        self._size = 0
        self._framing: Framing | None = None
        self._inflate: Callable[[bytes], bytes] = bytes

    def watch(
        self,
        connection: socket.socket,
        deadline: float,
        beat: Callable[[], None],
        enough: Callable[[Exchange], bool],
    ) -> Exchange:
        left = OPEN
        next_look = 0.0
        while left == OPEN and (wait := deadline - time.monotonic()) > 0:
            beat()
            connection.settimeout(min(wait, BEAT))
            try:
                data = connection.recv(65536)
            except TimeoutError:
                if self._framing is not None and enough(self._state(left)):
                    break
                continue
            except OSError as error:
                if self._framing is None:
                    return replace(self._exchange, failure=_reason(error), left_at=self._now())
                left = CUT
                break
            try:
                left = self._take(data)
            except BadAnswer as error:
                return replace(self._exchange, failure=str(error), left_at=self._now())
            if left == OPEN and self._framing is not None and self._now() >= next_look:
                next_look = self._now() + CHECK_EVERY
                if enough(self._state(left)):
                    break
        return self._state(left)

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _state(self, left: str) -> Exchange:
        arrivals = tuple(self._arrivals)
        return replace(self._exchange, arrivals=arrivals, left=left, left_at=self._now())

    def _take(self, data: bytes) -> str:
        """Process what was received (b"" at the connection's end) and return the body's state."""
        if self._framing is None:
            self._buffer += data
            if not self._read_head():
                if not data:
                    raise BadAnswer("the connection was closed without an answer")
                return OPEN
            data, self._buffer = self._buffer, b""
        elif not data:
            assert self._framing is not None  # noqa: S101 - for the type checker
            return self._framing.end
        framing = self._framing
        assert framing is not None  # noqa: S101 - for the type checker
        body = framing.feed(data)
        self._size += len(body)
        body = self._inflate(body)
        if body:
            self._arrivals.append(Arrival(self._now(), body))
        if self._size > BODY_LIMIT or len(self._arrivals) > MAX_ARRIVALS:
            return FULL
        return ENDED if framing.ended else OPEN

    def _read_head(self) -> bool:
        while True:
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if len(head) > HEAD_LIMIT:
                raise BadAnswer(f"the headers are longer than {HEAD_LIMIT} bytes")
            if not found:
                return False
            line, _, fields = head.partition(b"\r\n")
            status = _STATUS.fullmatch(line)
            if status is None:
                raise BadAnswer(f"not HTTP/1.1: {line[:60]!r}")
            self._buffer = rest
            if status[2][:1] != b"1":  # 100 Continue and the like come before the answer
                break
        headers = tuple(_header(field) for field in fields.split(b"\r\n")) if fields else ()
        exchange = replace(
            self._exchange,
            version=status[1].decode(),
            status=int(status[2]),
            headers=headers,
            head_at=self._now(),
        )
        coding = exchange.get("Content-Encoding").strip().lower()
        if coding in ("gzip", "x-gzip", "deflate"):
            self._inflate = Inflate()
        self._exchange = replace(
            exchange, opaque=coding not in ("", "identity", "gzip", "x-gzip", "deflate")
        )
        self._framing = framing_of(exchange)
        return True


def _header(line: bytes) -> tuple[str, str]:
    name, _, value = line.decode("latin-1").partition(":")
    return name.strip(), value.strip()
