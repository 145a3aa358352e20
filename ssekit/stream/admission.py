"""How many streams a process may have open, so that it still answers when it has enough of them.

The edges ask for an `Admission` before a source is called, and end it when the stream ends.
Limits come from the process (descriptors), from the server (gunicorn answers no more requests once
its greenlets or threads are used up), and from the author of the stream or the hub.
"""

from __future__ import annotations

import resource
from _thread import RLock
from collections.abc import Callable, Mapping
from typing import Any

from ssekit.host import wsgi_servers
from ssekit.host.backoff import jittered
from ssekit.host.counting import Counts, Uncounted
from ssekit.host.logs import Logger, Printable
from ssekit.stream.response import CONTENT_TYPE, Answer, Headers, closing_retry

COME_BACK = 10_000
"""Milliseconds, give or take half, after which a client that was rejected may come again."""

log = Logger("ssekit.rejected")

# The interpreter's own lock, the only one that gevent leaves alone: it is held for moments in which
# nothing waits, and gevent's would not do for threads and greenlets at once.
_lock = RLock()


class Admission:
    """One stream that was let in; to be given back once, with `end`.

    ``at_end``: what is called when the stream is over, if something else than its blocks serves it.
    """

    __slots__ = ("_address", "_held", "_limit", "at_end")

    def __init__(self, limit: Limit, address: str | None) -> None:
        self._limit: Limit | None = limit
        self._address = address
        self._held = True
        self.at_end: tuple[Callable[[], None], ...] = ()

    def release(self) -> None:
        """The stream has no greenlet or thread of its own any more."""
        if self._held:
            self._held = False
            _process.held -= 1

    def end(self) -> None:
        """The stream is over."""
        with _lock:
            at_end, self.at_end = self.at_end, ()
            limit, self._limit = self._limit, None
            if limit is not None:
                self.release()
                limit.leave(self._address)
        for call in at_end:
            call()


class Limit:
    """A bound on the streams of one hub in this process.

    ``streams`` bounds all of them, ``per_address`` those of one client address; None does not.
    The address is ``REMOTE_ADDR``: behind a proxy that you trust, wrap the application in
    werkzeug's ``ProxyFix``, which puts the client's there.  ``counts`` has the numbers of these
    streams.
    """

    def __init__(
        self,
        streams: int | None = None,
        per_address: int | None = None,
        counts: Counts | None = None,
    ) -> None:
        for name, value in (("max_streams", streams), ("max_per_address", per_address)):
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} must be a whole number from 1 up, not {value!r}")
        self.counts = counts or _uncounted
        self._streams = streams
        self._per_address = per_address
        self._open = 0
        self._addresses: dict[str, int] = {}

    def admit(self, environ: Mapping[str, Any]) -> Admission | None:
        """Let a stream in; return None, and log why, if there are enough."""
        address = environ.get("REMOTE_ADDR", "") if self._per_address is not None else None
        # A server answers one stream at least, and one that was handed over does not count.
        capacity = _capacity() if _process.held else None
        with _lock:
            reason = self._reason(address, capacity)
            if reason is None:
                self._open += 1
                _process.held += 1
                _process.count(1)
                if address is not None:
                    self._addresses[address] = self._addresses.get(address, 0) + 1
                return Admission(self, address)
        self.reject(environ, reason)
        return None

    def reject(self, environ: Mapping[str, Any], reason: str) -> None:
        """Count and log a client that is rejected."""
        self.counts.rejected(reason)
        log_rejected(environ, reason)

    def _of(self, address: str | None) -> int:
        return 0 if address is None else self._addresses.get(address, 0)

    def _reason(self, address: str | None, capacity: int | None) -> str | None:
        """Return why a stream is not admitted, or None if it is."""
        if self._streams is not None and self._open >= self._streams:
            return f"max_streams={self._streams}"
        if self._per_address is not None and self._of(address) >= self._per_address:
            return f"max_per_address={self._per_address}"
        if _process.open >= _process.room and _process.is_full():
            return "limit of open files"
        if capacity is not None and _process.held >= capacity:
            return f"the server answers {capacity} streams at most beside other requests"
        return None

    def leave(self, address: str | None) -> None:
        """Count one stream less."""
        self._open -= 1
        _process.count(-1)
        if address is not None:
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]


class Overloaded(Exception):
    """Raised by an opener that cannot decide now: the client is answered as over a limit."""


class _Process:
    open = 0
    held = 0  # of them, those with a greenlet or thread of their own
    room = 0.0  # for how many there were descriptors when the limit was last read
    capacity: int | None = None  # of its server, once that is known

    def __init__(self) -> None:
        self.observers: list[Callable[[int], None]] = []

    def is_full(self) -> bool:
        """Tell whether the limit of open files, as it is now, allows no further stream."""
        self.room = _descriptors()
        return self.open >= self.room

    def count(self, change: int) -> None:
        self.open += change
        for observer in self.observers:
            observer(self.open)


_process = _Process()
_uncounted = Uncounted()


def open_streams() -> int:
    """Return how many streams this process has open."""
    return _process.open


def taken_over_streams() -> int:
    """Return how many of them have no greenlet or thread of their own."""
    return _process.open - _process.held


def observe(observer: Callable[[int], None]) -> None:
    """Have ``observer`` called with the number of open streams now, and whenever it changes.

    It is called while a lock is held, and so must not wait.
    """
    with _lock:
        _process.observers.append(observer)
        observer(_process.open)


def log_rejected(environ: Mapping[str, Any], reason: str) -> None:
    """Log one line about a client that was rejected."""
    path = str(environ.get("SCRIPT_NAME", "")) + str(environ.get("PATH_INFO", ""))
    address = str(environ.get("REMOTE_ADDR", ""))
    fields = {"path": Printable(path), "address": Printable(address), "reason": reason}
    log.warning("path=%s address=%s reason=%r", *fields.values(), fields=fields)


def rejection(environ: Mapping[str, Any], cors: Headers) -> Answer:
    """Return the answer to a client for whom there is no room.

    An EventSource gives up for good on a status other than 200 (HTML standard, 9.2.3), so it gets
    an empty stream and is told when to come back; anybody else gets a 503.
    """
    if CONTENT_TYPE in environ.get("HTTP_ACCEPT", "").lower():
        headers = [
            ("Content-Type", f"{CONTENT_TYPE}; charset=utf-8"),
            ("Cache-Control", "no-store"),
        ]
        return Answer("200 OK", [*headers, *cors], closing_retry(COME_BACK))
    seconds = round(jittered(COME_BACK / 1000))
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Retry-After", str(seconds))]
    body = b"There are too many streams just now; come back later.\n"
    return Answer("503 Service Unavailable", [*headers, *cors], body)


def _descriptors() -> float:
    """The streams that the process's limit of open files allows, less what else it may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return float("inf")
    return soft - max(soft // 20, 40)


def _capacity() -> int | None:
    """The streams with a greenlet or thread each that leave the server some for other requests."""
    if _process.capacity is None:
        connection = wsgi_servers.find()
        _process.capacity = connection.capacity if connection is not None else None
    capacity = _process.capacity
    return None if capacity is None else max(capacity - max(capacity // 20, 1), 1)
