"""Streams of a plain function that is called at each tick: ``@Stream.every(seconds)``.

It is what a timer on a connection is elsewhere.  Nothing of such a stream has to wait anywhere, so
under gunicorn's gevent worker it needs no greenlet: its connection is taken over, and one timer
serves all (`ssekit.stream.taken_ticks`).  Elsewhere it is a generator with `every`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from ssekit.host.logs import Logger
from ssekit.stream.admission import Limit
from ssekit.stream.blocks import Blocks, Opener
from ssekit.stream.kept import Kept, kept, restored
from ssekit.stream.open import OpenStream
from ssekit.stream.response import last_event_id
from ssekit.stream.source import SourceBlocks, Stop, request_of
from ssekit.stream.timer import every

log = Logger("ssekit.stream")

Function = Callable[["Tick"], Any]


class Tick:
    """What a ticking function is called with: one for each client, for the life of its stream.

    It has room for attributes of your own, which are the client's state.
    """

    __slots__ = ("__dict__", "_environ", "number")

    number: int
    """From 0; counted with the ticks that were missed."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self.number = 0
        self._environ: dict[str, Any] | Kept = environ

    @property
    def request(self) -> Any:
        """The `werkzeug.Request` of the client; its body is gone once the stream is open."""
        return request_of(self.environ)

    @property
    def last_event_id(self) -> str | None:
        """The id after which the client wants to go on, or None."""
        return last_event_id(self.environ)

    @property
    def environ(self) -> dict[str, Any]:
        """The request's WSGI environ (PEP 3333)."""
        return restored(self._environ)

    def shrink(self) -> None:
        """Keep of the environ only what outlives the server's part in the stream."""
        if isinstance(self._environ, dict):
            self._environ = kept(self._environ)


class TickOpener(Opener):
    """Opens a stream of a function; raises ValueError for seconds that are not above 0."""

    def __init__(self, function: Function, seconds: float) -> None:
        if not callable(function):
            raise TypeError(f"Stream.every decorates a function, not a {type(function).__name__}")
        if not 0 < seconds < math.inf:
            raise ValueError(f"Stream.every needs seconds above 0, not {seconds!r}")
        self.limit = Limit()
        self._function = function
        self._seconds = seconds

    def open(self, environ: dict[str, Any]) -> Blocks:
        """Nothing of the function's runs before its first tick."""
        return TickBlocks(self._function, self._seconds, Tick(environ))


class TickBlocks(SourceBlocks):
    """What a function returns at each tick, as blocks."""

    def __init__(self, function: Function, seconds: float, tick: Tick) -> None:
        super().__init__(_items(function, seconds, tick), waits=True)
        self._function = function
        self._seconds = seconds
        self._tick = tick

    def take_over(self, stream: OpenStream) -> bool:
        """Have one timer serve the client, where the server can hand it over."""
        connection = stream.connection
        if connection is None or not stream.client.can_leave(connection):
            return False
        from ssekit.stream.taken_ticks import TakenTicks

        self._tick.shrink()
        try:
            TakenTicks(stream, connection, self._function, self._seconds, self._tick)
        except OSError as error:
            log.warning("a stream could not be taken over: %s", error)
            return False
        return True


def _items(function: Function, seconds: float, tick: Tick) -> Iterator[Any]:
    for number in every(seconds):
        tick.number = number
        try:
            item = function(tick)
        except Stop:
            return
        yield item
