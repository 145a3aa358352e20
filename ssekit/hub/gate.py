"""How many clients are authorized at once, and what becomes of those whose ``authorize`` fails."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from ssekit import host
from ssekit.host.wakeup import NativeLock
from ssekit.hub.grant import Grant
from ssekit.stream.admission import Overloaded
from ssekit.stream.source import is_http_exception

Authorize = Callable[[Any], Grant | None]
"""What says what a request may read: it gets a `werkzeug.Request`."""

log = logging.getLogger("ssekit.access")

PATIENCE = 5.0
"""Seconds that a client waits for its turn to be authorized."""
LOGGED_EVERY = 1.0
"""Seconds between two lines about a failing ``authorize``."""


class Places:
    """So many places, and those who wait for one, in their order.

    A semaphore of the standard library takes 12 function calls where nobody has to wait.
    """

    def __init__(self, number: int) -> None:
        self._free = number
        self._waiting: deque[threading.Event] = deque()
        self._lock = NativeLock()  # held for moments, by any thread

    def take(self, seconds: float) -> bool:
        """Take a place, after a wait if need be; false if none was free for ``seconds``."""
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            turn = threading.Event()
            self._waiting.append(turn)
        try:
            turn.wait(seconds)
        except BaseException:
            if not self._stops_waiting(turn):
                self.put_back()
            raise
        return not self._stops_waiting(turn)

    def _stops_waiting(self, turn: threading.Event) -> bool:
        """Take back that somebody waits; false if it has been given a place."""
        with self._lock:
            waited = turn in self._waiting
            if waited:
                self._waiting.remove(turn)
            return waited

    def put_back(self) -> None:
        """Give a place to the one that has waited longest, or keep it for the next."""
        with self._lock:
            if not self._waiting:
                self._free += 1
                return
            turn = self._waiting.popleft()
        turn.set()


class Gate:
    """Lets at most ``places`` clients be authorized at once; the others wait for a moment.

    A thousand clients that come back together would otherwise take every connection of the
    application's database.
    """

    def __init__(self, places: int) -> None:
        if not isinstance(places, int) or isinstance(places, bool) or places < 1:
            raise ValueError(f"authorizing must be a whole number from 1 up, not {places!r}")
        self._places = Places(places)
        self._logged_at = -LOGGED_EVERY
        self._unlogged = 0

    def authorize(self, authorize: Authorize, request: Any) -> Grant | None:
        """Return what ``authorize`` returns.

        Raises the HTTP exceptions that it raises, and `Overloaded` if it fails or there is no
        place.
        """
        if not self._places.take(PATIENCE):
            raise Overloaded("too many clients are being authorized")
        try:
            return authorize(request)
        except (host.Ended, GeneratorExit, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            if is_http_exception(error) or not host.failed(error):
                raise
            self._log(str(request.environ.get("PATH_INFO", "")))
            raise Overloaded("authorize failed") from error
        finally:
            self._places.put_back()

    def _log(self, path: str) -> None:
        now = time.monotonic()
        if now - self._logged_at < LOGGED_EVERY:
            self._unlogged += 1
            return
        more = f" (and {self._unlogged} times before)" if self._unlogged else ""
        self._logged_at, self._unlogged = now, 0
        log.exception("authorize of %s failed: the client is told to come back%s", path, more)
