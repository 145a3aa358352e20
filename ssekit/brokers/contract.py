"""The broker contract: an append-only log of events, and cursors in it.

The hub is the only caller.  A broker knows channels, entries and ids; it knows no viewer, no stream
and no framework.  Every broker passes the same tests (tests/test_brokers.py).

A *cursor* is the id of the last entry that somebody has seen: ASCII, ``epoch-seq``.  The seq counts
from 1 without gaps, and 0 stands for the time before the first entry.  The epoch (milliseconds) is
new whenever a log is created.  It is also new, and the seq counts on, when an entry is appended
after the log may have forgotten its newest entries, as a crash can make it: an id that was given
out and forgotten is then never given to another entry.  Live delivery, resuming and catching up
are the same read after a cursor, so nothing can fall between them.

What a log keeps
    * the newest `RECENT` entries of all channels, of whatever kind, for the processes that follow,
    * of each channel its newest ``history`` events without a key (up to twice as many may still be
      seen), none older than ``max_age``; ``capacity`` bounds these over all channels: beyond it the
      produced channel that finished first gives up all of its events, or, where there is none, the
      channel with the most gives up its oldest,
    * all events of a channel while it has a producer, up to `MOST_PRODUCED`; they count towards
      ``capacity``, but not ``history``, once it is finished, and like others once it is reopened,
    * of each channel the newest entry of each key, until it is removed, up to ``max_keys``,
    * of each channel up to which seq its events were trimmed, for `CHANNELS_REMEMBERED` channels
      that have nothing else; the others share a floor,
    * of each finished channel its end, for `END_REMEMBERED` seconds after its events have expired:
      it is forgotten when it is older than that and ``max_age``, and no event is kept.

Kinds of entries
    * an event, with or without a key; an entry of a key supersedes the earlier one of that key,
    * a *passing* one, which only those who follow get: `read` and `history` never return it,
    * the removal of a key (event ``stream-remove``), which has that ``key``, supersedes the key's
      entry and is itself kept like an event without a key, but is no part of any history,
    * the end of a channel (event ``stream-end``), which is kept until the channel is reopened, and
      is no part of any history either.

Channels whose name begins with `INTERNAL` are the hub's own (members, revocations).  They have keys
only, ``max_keys`` does not bound them, and they never count towards ``capacity``.  Whatever
``max_age`` is, their removals expire after `INTERNAL_KEPT` seconds, and are gone when later writes
have tidied their channel: else each room that was ever left would take room in the log.

A *lease* is how a process shows that it is alive.  The log has no clock for it: `beat` counts up,
and a process that has seen no beat of another one for a whole term ends that lease.  What a lease
holds (channels that it produces, members that it has present) is ended by the first that notices.

Brokers look up the bounds below when they need them (``contract.RECENT``), so that tests can change
them.  The time of an entry is never before that of the entry before it, whatever the clock does.

Calls may come from any thread and any greenlet.  One that interrupts another in the same thread, as
a signal handler or a ``__del__`` does, either is carried out properly or raises `BrokerUnavailable`
before anything is stored.

Waiting is done with primitives of the standard library that gevent makes cooperative
(`ssekit.host.wakeup`); nothing here imports gevent.  After a fork the child's first call opens what
it needs itself, and nothing of the parent's is touched.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf
from typing import Literal, NamedTuple

from ssekit.errors import SSEError

RECENT = 1000
"""The newest entries of all channels that a log keeps for those who follow."""

CHANNELS_REMEMBERED = 100_000
"""For so many channels a log remembers up to where each was trimmed; for others, a floor."""

EPOCHS_REMEMBERED = 100
"""So many earlier epochs of a log stay valid."""

END_REMEMBERED = 86_400
"""Seconds for which a log remembers that a channel is finished, after its events have expired."""

INTERNAL_KEPT = 3600
"""Seconds for which the removals in the hub's own channels are kept."""

MOST_PRODUCED = 100_000
"""The most events that a channel with a producer keeps."""

BATCH = 1000
"""The most entries that one `Broker.follow` returns."""

BATCH_BYTES = 1 << 20
"""Once the entries that one `Broker.read` or `Broker.follow` returns have as many, no more come."""

INTERNAL = "\0"
"""What the names of the hub's own channels begin with; no user's channel can."""


class HistoryLost(SSEError):
    """Raised if the log no longer holds, or never held, what comes after a cursor."""


class LeaseEnded(SSEError):
    """Raised if a lease that is to hold something was ended, or never began."""


@dataclass(frozen=True)
class Retention:
    """What a log keeps, written into the log by its creator.

    A broker that finds a log writes only what was ``given`` into it, once, before its first call
    that writes or tells where the log ends.  Raises `ValueError`.

    ``history``: events without a key that each channel keeps, 1 or more.
    ``capacity``: such events of all channels together; a ``history`` above it raises it.
    ``max_keys``: keys of one channel.
    ``max_age``: seconds after which an event without a key expires, or None.
    ``given``: the names of those that the user gave.
    """

    history: int = 1000
    capacity: int = 100_000
    max_keys: int = 10_000
    max_age: float | None = None
    given: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for name in ("history", "capacity", "max_keys"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a whole number from 1 up, not {value!r:.80}")
        age = self.max_age
        if age is not None and (
            not isinstance(age, int | float) or isinstance(age, bool) or not 0 < age < inf
        ):
            raise ValueError(f"max_age must be seconds above 0, or None, not {age!r:.80}")

    @property
    def room(self) -> int:
        """The events that all channels keep together: ``capacity``, or a ``history`` above it."""
        return max(self.capacity, self.history)

    def changed_by(self, other: Retention) -> Retention:
        """Return this retention, of a log, with what was given to a broker that has found it."""
        return replace(self, **{name: getattr(other, name) for name in other.given})


class _Fields(NamedTuple):
    id: str
    channel: str
    body: bytes
    key: str | None = None
    passing: bool = False
    time: float = 0.0


class Entry(_Fields):
    """One entry as the log holds it.

    ``body`` is the event as bytes of an event stream, without its id and the blank line that ends
    it: an event is encoded once, by the hub, and everything that sends it joins bytes.
    ``time`` is when it was stored, in seconds since 1970 by the log's clock.
    """

    # A tuple is made in a third of the time that a frozen dataclass takes.

    @cached_property
    def frame(self) -> bytes:
        """The event as every viewer gets it; a passing one has no id."""
        return self.body + (b"\n" if self.passing else b"id: %b\n\n" % self.id.encode())

    @property
    def without_id(self) -> bytes:
        """The event as an opening has it."""
        return self.body + b"\n"


def bounded(entries: Iterable[Entry]) -> list[Entry]:
    """Return the first of some entries: one, and more until they come to `BATCH_BYTES`."""
    found, size = [], 0
    for entry in entries:
        found.append(entry)
        size += len(entry.body)
        if size >= BATCH_BYTES:
            break
    return found


class Opening(NamedTuple):
    """What a client that joins is sent, all of one moment."""

    state: Sequence[Entry]
    """The newest entry of every key, oldest first."""
    history: Sequence[Entry]
    """The last events without a key, as many as were asked for, oldest first."""
    complete: bool
    """Whether no event or removal of these channels has been trimmed or has expired."""
    ends: Mapping[str, Entry]
    """By channel, the ends of those that are finished."""
    tip: str
    """The cursor at the log's end: everything above is at or before it."""


class Status(NamedTuple):
    """What a channel is, with the reason where it is finished."""

    state: Literal["open", "producing", "finished"]
    reason: str | None = None


class Held(NamedTuple):
    """What a lease holds: a channel that it produces, or a member that it has present in one."""

    channel: str
    member: str | None = None


class Broker(ABC):
    """An append-only log.

    Every method raises `HubClosed` after `close`, and `BrokerUnavailable` if the log cannot be
    reached just now or is not one of ours; the same call may be made again later.  Only `append`
    begins a damaged log anew.  Where the place is empty, `tip`, `recent`, `opening` and what writes
    may create a log; the others find an empty one, to which no cursor belongs.  What is foreign
    there is never changed by anything.
    """

    # -- writing

    @abstractmethod
    def append(
        self,
        channel: str,
        body: bytes,
        *,
        key: str | None = None,
        passing: bool = False,
        holder: str | None = None,
    ) -> Entry:
        """Store an entry and return it.  Nothing is ever retried once it may have been stored.

        ``holder`` is the lease of the channel's producer, if the producer sends.

        Raises `ChannelFinished` if the channel is finished, or if ``holder`` is given and is not
        its producer, or is no longer: its ``reason`` is None if the channel is not finished.
        Raises `InvalidEvent` if the channel has ``max_keys`` other keys.
        """

    def append_in(
        self,
        connection: object,
        channel: str,
        body: bytes,
        *,
        key: str | None = None,
        passing: bool = False,
    ) -> None:
        """Store an entry with the commit of the caller's own transaction on a connection.

        It gets its place in the log after the commit, or never.  What `append` refuses for the
        state of the channel is refused if it can be known now; otherwise the entry is dropped
        later, with a warning in the log.

        Raises `ValueError` if this log is not in the connection's database, or the connection is
        in autocommit outside a transaction; `ChannelFinished`.
        """
        raise ValueError("only a postgresql: log can publish in a transaction of a connection")

    def is_in_database_of(self, connection: object) -> bool:
        """Return whether this log is in a connection's database, or will be, once it is created.

        Then `append_in` takes the connection.
        """
        return False

    @abstractmethod
    def remove(self, channel: str, key: str, body: bytes) -> Entry | None:
        """Store the removal of a key; None, and nothing stored, if the channel has no such key.

        Raises `ChannelFinished`.
        """

    @abstractmethod
    def finish(
        self, channel: str, body: bytes, reason: str, *, holder: str | None = None
    ) -> Entry | None:
        """Store the end of a channel, once; the channel then has no producer.

        None, and nothing stored, if it is finished already, or if ``holder`` is given and does not
        produce it.
        """

    @abstractmethod
    def reopen(self, channel: str) -> bool:
        """Forget that a channel is finished, and its end; false if it is not finished.

        Those who follow still get the end if they have not seen it; `read` leaves it out.
        """

    # -- reading

    @abstractmethod
    def read(self, channels: Collection[str], after: str, limit: int) -> tuple[list[Entry], str]:
        """Return up to ``limit`` entries of these channels after the cursor, oldest first.

        They are fewer where their bodies come to `BATCH_BYTES`, and one at least.  Passing and
        superseded entries are left out.  Never waits for an event.  The cursor in the answer is at
        or after all that was looked at, entries of other channels included; where it equals
        ``after`` there is nothing more.

        Raises `HistoryLost` if events without a key or removals of *these* channels after ``after``
        are gone, or if ``after`` is not an id of this log: malformed, of another epoch, or from the
        future.  A superseded entry is not lost.
        """

    @abstractmethod
    def follow(self, after: str, timeout: float) -> tuple[list[Entry], str]:
        """Wait up to ``timeout`` seconds for entries of any channel and kind after the cursor.

        Returns them, up to `BATCH` or `BATCH_BYTES` at once, one at least and without a gap, with
        the cursor at the last, or none after the timeout.  One caller follows for all the viewers
        of a process.

        Raises `HistoryLost` if any entry after ``after`` may be gone: if it is not an id of this
        log, or more than `RECENT` entries have followed it.
        """

    @abstractmethod
    def recent(self, limit: int) -> tuple[list[Entry], str]:
        """Return the newest entries of any channel and kind, up to ``limit``, without a gap.

        Oldest first, with the cursor at the log's end.
        """

    @abstractmethod
    def opening(self, channels: Collection[str], replay: int | None) -> Opening:
        """Return what a client that joins is sent; ``replay`` events at most, None for all."""

    @abstractmethod
    def history(self, channels: Collection[str], limit: int, before: str | None) -> list[Entry]:
        """Return the last events without a key before a cursor, or before the end, oldest first.

        Raises `HistoryLost` if ``before`` is not an id of this log.
        """

    @abstractmethod
    def ends(self, channels: Collection[str]) -> dict[str, Entry]:
        """Return the ends of those of the channels that are finished."""

    @abstractmethod
    def status(self, channel: str) -> Status:
        """Return whether a channel is open, has a producer, or is finished and why."""

    @abstractmethod
    def tip(self) -> str:
        """Return the cursor at the end of the log."""

    @abstractmethod
    def retention(self) -> Retention:
        """Return what the log keeps: its own settings, with what was given to this broker."""

    # -- leases

    @abstractmethod
    def beat(self, holder: str, *, first: bool = False) -> bool:
        """Begin (``first``) or renew a lease; false if it was ended, and nothing is renewed."""

    @abstractmethod
    def leases(self) -> dict[str, int]:
        """Return the beats of each lease so far, and -1 for one that was ended."""

    @abstractmethod
    def end_lease(self, holder: str, beats: int) -> bool:
        """End a lease that still has as many beats, or was ended; false if it has more.

        What it holds is there until it is ended too: `finish` and `leave` with its ``holder``.  A
        lease that was ended and holds nothing is forgotten.
        """

    @abstractmethod
    def held(self, holder: str) -> list[Held]:
        """Return what a lease holds."""

    @abstractmethod
    def produce(self, channel: str, holder: str) -> None:
        """Make a lease the producer of a channel, which keeps all events from now on.

        Raises `ChannelBusy` if it has a producer, `ChannelFinished` if it is finished, `LeaseEnded`
        if there is no such lease.
        """

    @abstractmethod
    def join(self, members: Mapping[tuple[str, str], bytes], holder: str) -> None:
        """Have members present: by internal channel and member, the body of its entry.

        It is stored as an entry of the key ``member``, unless the member is held already, by this
        or another lease, with the same body.  Raises `LeaseEnded` if there is no such lease.
        """

    @abstractmethod
    def leave(self, members: Mapping[tuple[str, str], bytes], holder: str) -> None:
        """Have members no longer held by this lease; where nobody holds one, store its removal."""

    @abstractmethod
    def close(self) -> None:
        """Release the log; a caller that waits in `follow` gets `HubClosed` at once."""
