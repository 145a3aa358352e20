"""Work that is done in slices, one in each turn of gevent's event loop.

A callback that asks for another one by ``run_callback``, and a greenlet that calls
``gevent.sleep(0)``, go on before a socket is looked at: gevent runs fifty callbacks first, however
long they take (26.9, ``CALLBACK_CHECK_COUNT``).  Fifty slices of 5 ms keep every request waiting
for a quarter of a second.  A timer that is due at once runs in the next turn, with the sockets that
are ready then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent


class NextTurn:
    """Calls a function in the next turn, once however often that is asked for."""

    __slots__ = ("_function", "_timer")

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self._timer: Any = gevent.get_hub().loop.timer(0.0)

    def ask(self) -> None:
        """Have it called; from the event loop's thread."""
        if not self._timer.active:
            # When this turn began is soon enough, and whoever measures the turn needs that time.
            self._timer.start(self._function, update=False)


def wait_for_next_turn() -> None:
    """Let everything run that is ready, sockets included, before this greenlet goes on."""
    hub = gevent.get_hub()
    with hub.loop.timer(0.0) as timer:
        hub.wait(timer)
