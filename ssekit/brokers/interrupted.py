"""What a broker does about a call that interrupts another one in the same thread.

Signal handlers and ``__del__`` run between any two steps of whatever the thread was doing.  A lock
does not keep them out: it would have to be released by the very code that they interrupt.
"""

from __future__ import annotations

from ssekit.errors import BrokerUnavailable

INTERRUPTING = (
    "called by a signal handler or a __del__ that interrupted another call of the same broker, so"
    " nothing was done; let the handler set a flag and publish later"
)


class NotInterrupting:
    """Refuses a call that interrupts another one.  To be entered while holding a native lock.

    The lock keeps out other threads, so a call that finds one inside has interrupted it.
    """

    def __init__(self) -> None:
        self.inside = False
        """Whether a call is going on."""

    def __enter__(self) -> None:
        if self.inside:
            raise BrokerUnavailable(INTERRUPTING)
        self.inside = True

    def __exit__(self, *_: object) -> None:
        self.inside = False
