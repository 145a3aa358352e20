"""The broker contract: an append-only log of events, and cursors in it.

The hub is the only caller.  A broker knows channels, events and ids; it knows no viewer, no stream
and no framework, and the three of them do not know each other.  It keeps the last ``history``
events of all its channels together.  Every broker here passes the same tests.

A *cursor* is the id of the last event that somebody has seen: ASCII, ``epoch-seq``.  The seq counts
from 1 without gaps, and 0 stands for the time before the first event.  The epoch (milliseconds) is
new whenever a log is created.  It is also new, and the seq counts on, when an event is appended
after the log may have forgotten its newest entries, as a crash can make it: an id that was given
out and forgotten is then never given to another event.  Live delivery, resuming and catching up
are the same read behind a cursor, so nothing can fall between them.

Calls may come from any thread and any greenlet.  Waiting is done with primitives of the standard
library that gevent makes cooperative (`ssekit.host.wakeup`); nothing here imports gevent.
After a fork the child's first call opens what it needs anew.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass

from ssekit.errors import SSEError
from ssekit.wire import Event

CHANNELS_REMEMBERED = 100_000
"""For so many channels a broker remembers up to where each was trimmed; for others, a floor."""

EPOCHS_REMEMBERED = 100
"""So many earlier epochs of a log stay valid."""

BATCH = 1000
"""The most entries that one `Broker.follow` returns."""


class HistoryLost(SSEError):
    """Raised if the log no longer holds, or never held, what comes after a cursor."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One event as the log holds it, with its bytes, which are the same for every viewer."""

    id: str
    channel: str
    event: Event
    frame: bytes


class Broker(ABC):
    """An append-only log.

    Every method raises `HubClosed` after `close`, and `BrokerUnavailable` if the log cannot be
    reached just now; the same call may be made again later.
    """

    @abstractmethod
    def append(self, channel: str, event: Event) -> Event:
        """Store the event and return it as it is stored: with its id, and with its data as text.

        An id that the event brings is not used.  What `append` returns is what every `read` and
        `follow` of any process yields.  Nothing is ever retried once it may have been stored.

        Raises `InvalidEvent`, before anything is stored, for what the format cannot carry.
        """

    @abstractmethod
    def read(self, channels: Collection[str], after: str, limit: int) -> tuple[list[Entry], str]:
        """Return up to ``limit`` entries of these channels behind the cursor ``after``.

        Never waits for an event.  The cursor in the answer stands behind all that was looked at,
        entries of other channels included; where it equals ``after`` there is nothing more.

        Raises `HistoryLost` if entries of *these* channels behind ``after`` are gone, or if
        ``after`` is not an id of this log: malformed, of another epoch, or from the future.
        """

    @abstractmethod
    def follow(self, after: str, timeout: float) -> tuple[list[Entry], str]:
        """Wait up to ``timeout`` seconds for entries of any channel behind ``after``.

        Returns them, up to `BATCH` at once and without a gap, with the cursor behind them, or
        none after the timeout.  This is the tail of a process: one caller follows for all of its
        viewers.  Raises `HistoryLost` if any entry behind ``after`` is gone.
        """

    @abstractmethod
    def tip(self) -> str:
        """Return the cursor at the end of the log, which is created if it does not exist."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the log; whoever waits in `follow` gets `HubClosed` at once."""
