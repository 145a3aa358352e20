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
library that gevent makes cooperative (`ssekit.brokers.waking`); nothing here imports gevent.
After a fork the child's first call opens what it needs anew.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from ssekit.errors import SSEError
from ssekit.wire import Decoder, Event

CHANNELS_REMEMBERED = 100_000
"""For so many channels a broker remembers up to where each was trimmed; for others, a floor."""

EPOCHS_REMEMBERED = 100
"""So many earlier epochs of a log stay valid."""

BATCH = 1000
"""The most entries that one `Broker.follow` returns."""

# Sixteen digits stay within what a double holds exactly, which is what Lua and a Redis score are.
_ID = re.compile("(0|[1-9][0-9]{0,15})-(0|[1-9][0-9]{0,15})", re.ASCII)


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


def connect(url: str, history: int = 1000) -> Broker:
    """Return the broker that the URL names, which keeps the last ``history`` events.

    ``memory:`` is this process, ``sqlite:///relative.db`` and ``sqlite:////absolute.db`` every
    process of this machine, ``redis://host:port/db?stream=name``, ``rediss://`` and ``unix://``
    many machines.  Nothing is opened before the first use.  Raises `ValueError` for another URL or
    a history below 1, and `ImportError` where the redis package is missing.
    """
    if not isinstance(history, int) or isinstance(history, bool) or history < 1:
        raise ValueError(f"history must be a whole number of events from 1 up, not {history!r}")
    scheme = url.partition(":")[0] if isinstance(url, str) else ""
    if scheme == "memory":
        from ssekit.brokers.memory import MemoryBroker

        return MemoryBroker.from_url(url, history)
    if scheme == "sqlite":
        from ssekit.brokers.sqlite import SQLiteBroker

        return SQLiteBroker.from_url(url, history)
    if scheme in ("redis", "rediss", "unix"):
        from ssekit.brokers.redis import RedisBroker

        return RedisBroker.from_url(url, history)
    raise ValueError(
        f"{url!r} names no broker: memory:, sqlite:///file.db, redis://host:port/db,"
        " rediss:// or unix:///path/of/socket"
    )


def id_of(epoch: int, seq: int) -> str:
    return f"{epoch}-{seq}"


def parse_id(cursor: str) -> tuple[int, int]:
    """Return the epoch and seq of a cursor; raises `HistoryLost` if it never was one."""
    match = _ID.fullmatch(cursor)
    if match is None:
        raise HistoryLost(f"{cursor!r:.80} is not an id of a log")
    return int(match[1]), int(match[2])


def seq_in(cursor: str, epoch: int, tip: int, past: Mapping[int, int] = {}) -> int:
    """Return the seq of a cursor in the log of this epoch whose last seq is ``tip``.

    ``past`` has the log's earlier epochs, each with its last seq.  Raises `HistoryLost` if the
    cursor never was in the log, or no longer is.
    """
    theirs, seq = parse_id(cursor)
    last = tip if theirs == epoch else past.get(theirs)
    if last is None:
        raise HistoryLost(f"{cursor} belongs to another log than {epoch}")
    if seq > last:
        raise HistoryLost(f"{cursor} is not in the log, which then ended at {last}")
    return seq


def as_stored(event: Event) -> Event:
    """Return the event in the form that a log keeps: its data as the text that a client gets.

    Two processes then hold equal events, and nobody can change published data afterwards.
    Raises `InvalidEvent`.
    """
    event = replace(event, id=None)
    event.encode()
    data = event.data
    if data is None or (type(data) is str and "\r" not in data):
        return event
    (seen,) = Decoder().feed(Event(data).encode())
    return replace(event, data=seen.data)


def entry_of(channel: str, event: Event, entry_id: str) -> Entry:
    event = replace(event, id=entry_id)
    return Entry(entry_id, channel, event, event.encode())


def pack(event: Event) -> str:
    """Return a stored event without its id as one text."""
    fields = [event.data, event.event, event.retry, event.comment]
    while fields and fields[-1] is None:
        fields.pop()
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def unpack(channel: str, entry_id: str, packed: str) -> Entry:
    data, event, retry, comment = [*json.loads(packed), None, None, None, None][:4]
    return entry_of(channel, Event(data, event, None, retry, comment), entry_id)
