"""Ticking streams whose connections were taken over: one timer for all, and no greenlet for any."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ssekit import host
from ssekit.host.connection import Connection
from ssekit.host.logs import Logger
from ssekit.host.ticking import TickingClient
from ssekit.stream.kept import kept_path
from ssekit.stream.open import OpenStream, log_ended
from ssekit.stream.response import closing_retry
from ssekit.stream.source import Stop, encode

log = Logger("ssekit.stream")

SOURCE_ENDED = "source ended"


class TakenTicks(TickingClient):
    """One client: its tick, and what `OpenStream` knew of it.

    Raises OSError, with nothing changed, if the process has no descriptor left.
    """

    __slots__ = (
        "_about",
        "_admission",
        "_began",
        "_bytes",
        "_counts",
        "_cuts",
        "_events",
        "_function",
        "_path",
        "_retry",
        "_tick",
    )

    def __init__(
        self,
        stream: OpenStream,
        connection: Connection,
        function: Callable[[Any], Any],
        seconds: float,
        tick: Any,
    ) -> None:
        self._admission = stream.admission
        self._path = kept_path(stream.path)
        self._about = stream.about
        self._counts = stream.counts
        self._retry = stream.retry
        self._cuts = stream.cuts
        self._began = stream.began
        self._events = 0
        self._bytes = stream.given + len(stream.opening)
        self._function = function
        self._tick = tick
        super().__init__(connection, seconds, stream.heartbeat, stream.opening)
        stream.admission.release()

    def produce(self) -> bytes:
        tick = self._tick
        tick.number = self.number
        block = encode(self._function(tick))
        if block:
            self._events += 1
            self._bytes += len(block)
        return block

    def reason(self, error: BaseException) -> str:
        if isinstance(error, Stop | SystemExit):
            return SOURCE_ENDED
        if host.failed(error):
            log.exception("the source of %s failed; its stream ends", self._path)
        return "source failed"

    def last_block(self, why: str) -> tuple[bytes, bool]:
        if why == SOURCE_ENDED:
            return b"", False
        block = closing_retry(self._retry)
        self._bytes += len(block)
        return block, self._cuts

    def was_closed(self, why: str) -> None:
        self._admission.end()
        self._counts.ended(why)
        log_ended(self._path, self._began, self._events, self._bytes, why, about=self._about)
