"""Who is here: members of channels, for as long as a stream of theirs is open somewhere.

Each channel has an internal channel of its own for its members, with one key for each: what is kept
of messages is not touched, and joins and leaves are resumed like everything else.  The log knows
which processes hold a member, and stores a leave when the last one lets go of it.

This module counts the open streams of each member in this process.  A member joins with the first,
and leaves when none has been open for `GRACE` seconds, so that reloading a page changes nothing.
One background loop writes what has come together since its last turn; a stream that opens or ends
only counts.  No viewer costs a write to stay: the process has one lease (`ssekit.hub.lease`).

A process that is told to end writes no leaves.  Its lease runs out, and by then its clients are
back at another process, or are gone.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from ssekit import host
from ssekit.brokers import Broker, Entry
from ssekit.brokers.contract import INTERNAL, LeaseEnded
from ssekit.errors import BrokerUnavailable, HubClosed
from ssekit.host.backoff import Backoff
from ssekit.host.wakeup import NativeLock
from ssekit.host.wsgi_servers import worker_is_ending
from ssekit.hub.entries import event_of, join_body, leave_body
from ssekit.hub.follower import Follower
from ssekit.hub.grant import Member
from ssekit.hub.lease import AT_ONCE, Leases

log = logging.getLogger("ssekit.hub")

GRACE = 5.0
"""Seconds after its last stream has ended until a member leaves."""
TURN = 0.1
"""Seconds between two turns of the loop that writes joins and leaves."""

_MEMBERS = f"{INTERNAL}members{INTERNAL}"

Key = tuple[str, str]
"""A channel and a member."""


def members_channel(channel: str) -> str:
    """Return the internal channel that has a channel's members."""
    return _MEMBERS + channel


def members_in(entries: Iterable[Entry]) -> dict[str, Any]:
    """Return the members of an internal channel, with their values."""
    says = (json.loads(str(event_of(entry).data)) for entry in entries)
    return {one["member"]: one["value"] for one in says}


class _Here:
    """One member of one channel, in this process."""

    __slots__ = ("body", "leaves_at", "streams", "written")

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.streams = 0
        self.leaves_at = 0.0  # while it has no stream
        self.written = False  # whether the log may have it


class Presence:
    """The members that this process has present, in one log."""

    def __init__(self, broker: Broker, leases: Leases, follower: Follower) -> None:
        self.follower = follower
        self.closed = False
        self._broker = broker
        self._leases = leases
        self._holder: str | None = None
        self._holds = False  # whether the lease counts us
        self._lock = NativeLock()  # held for moments, by any thread
        self._here: dict[Key, _Here] = {}
        self._joining: dict[Key, None] = {}
        self._leaving: deque[tuple[float, Key]] = deque()  # soonest first: each has the same grace
        self._running = False
        self._unsure = False  # whether the log may have forgotten who is here
        self._counted = 0  # in the hub's numbers
        leases.on_lost.append(self._lose)
        follower.internal[_MEMBERS] = self

    def enter(self, channels: Iterable[str], member: Member) -> Stay:
        """Count a stream of a member in some channels, until the stay is ended."""
        stay = Stay(self, [(channel, member.id) for channel in channels])
        with self._lock:
            for key in stay.keys:
                body = join_body(key[0], member.id, member.value)
                here = self._here.setdefault(key, _Here(body))
                here.streams += 1
                if not here.written or here.body != body:
                    here.body = body
                    self._joining[key] = None
            begins = not self._running
            self._running = True
        if begins:
            host.begin(self._run, "ssekit-presence")
        return stay

    def exit(self, keys: Collection[Key]) -> None:
        """Count a stream less; it never waits."""
        leaves_at = time.monotonic() + GRACE
        with self._lock:
            for key in keys:
                here = self._here[key]
                here.streams -= 1
                if not here.streams:
                    here.leaves_at = leaves_at
                    self._leaving.append((leaves_at, key))

    @property
    def holds(self) -> bool:
        """Whether this process has members present: its lease has to run out."""
        return self._holds and self.follower.process == os.getpid()

    def close(self) -> None:
        """Write nothing more."""
        self.closed = True

    # -- called by the follower, as for the listener of an internal channel

    def take(self, entries: Sequence[Entry]) -> None:
        """Never called: no entry is in the channel that this listens to."""

    def restart(self) -> None:
        """The log may have forgotten who is here."""
        self._unsure = True

    def away(self) -> None:
        """Once the log is back, it may have forgotten who is here."""
        self._unsure = True

    # -- the background loop

    def _lose(self) -> None:
        """The lease was ended: everything has to be joined again, with another."""
        self._holder = None
        with self._lock:
            self._joining.update((key, None) for key, here in self._here.items() if here.written)

    def _run(self) -> None:
        backoff = Backoff(0.2, 5.0)
        while self._goes_on():
            time.sleep(TURN)
            try:
                self._check()
                self._join()
                self._leave()
            except HubClosed:
                self.closed = True
            except BrokerUnavailable:
                time.sleep(backoff.next())  # The follower logs an outage.
            except Exception:
                log.exception("the hub could not write who is here, and tries again")
                time.sleep(backoff.next())
            else:
                backoff.reset()

    def _goes_on(self) -> bool:
        self._count()
        with self._lock:
            goes_on = self._running = bool(self._here) and not self.closed
            released, self._holds = self._holds and not goes_on and not self.closed, self._holds
            if released:
                self._holds, self._holder = False, None
        self.follower.counts.set("members", len(self._here))
        if released:
            self._leases.release()
        return goes_on

    def _count(self) -> None:
        change = len(self._here) - self._counted
        if change:
            self._counted += change
            self.follower.counts.add("members", change)

    def _lease(self) -> str:
        """Return this process's lease; everything that was joined with another is joined again."""
        if self._holder is None:
            holder = self._leases.renewed() if self._holds else self._leases.hold()
            self._holds = True
            self._holder = holder
        return self._holder

    def _check(self) -> None:
        """Join again what the log has forgotten."""
        holder, unsure = self._holder, self._unsure
        self._unsure = False
        if not unsure or holder is None:
            return
        try:
            held = {
                (channel, member)
                for channel, member in self._broker.held(holder)
                if member is not None
            }
        except BaseException:
            self._unsure = True
            raise
        with self._lock:
            for key, here in self._here.items():
                if here.written and (members_channel(key[0]), key[1]) not in held:
                    self._joining[key] = None

    def _join(self) -> None:
        with self._lock:
            if not self._joining:
                return
            keys = [key for key in self._joining if key in self._here]
            self._joining.clear()
            # Who has come and gone before this turn was never here.
            keys = [key for key in keys if self._here[key].streams or self._here[key].written]
            bodies = {key: self._here[key].body for key in keys}
            for key in keys:
                self._here[key].written = True  # or may be, whatever happens
        try:
            holder = self._lease()
            for channel, some in _by_channel(bodies):
                self._broker.join(members_channel(channel), some, holder)
                for member in some:
                    del bodies[channel, member]
        except LeaseEnded:
            self._lose()
        finally:
            with self._lock:
                self._joining.update(dict.fromkeys(bodies))

    def _leave(self) -> None:
        if not self._leaving or worker_is_ending():
            return
        due = self._due(time.monotonic())
        bodies = {key: leave_body(self._here[key].body) for _, key in due}
        try:
            for channel, some in _by_channel(bodies):
                self._broker.leave(members_channel(channel), some, self._lease())
                for member in some:
                    del bodies[channel, member]
                    self._left((channel, member))
        finally:
            with self._lock:
                self._leaving.extendleft(one for one in reversed(due) if one[1] in bodies)

    def _due(self, now: float) -> list[tuple[float, Key]]:
        """Take those whose grace is over, and forget those of them that were never written."""
        found = []
        with self._lock:
            while self._leaving and self._leaving[0][0] <= now:
                leaves_at, key = self._leaving.popleft()
                here = self._here.get(key)
                if here is None or here.streams or here.leaves_at != leaves_at:
                    continue  # It came back.
                if here.written:
                    found.append((leaves_at, key))
                else:
                    del self._here[key]
        return found

    def _left(self, key: Key) -> None:
        with self._lock:
            here = self._here[key]
            here.written = False
            if here.streams:
                self._joining[key] = None  # It came back while that was being written.
            elif here.leaves_at <= time.monotonic():
                del self._here[key]


class Stay:
    """One open stream of a member."""

    __slots__ = ("_presence", "keys")

    def __init__(self, presence: Presence, keys: list[Key]) -> None:
        self._presence: Presence | None = presence
        self.keys = keys

    def end(self) -> None:
        """The stream is over; a second call does nothing."""
        presence, self._presence = self._presence, None
        if presence is not None:
            presence.exit(self.keys)


def _by_channel(bodies: dict[Key, bytes]) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Divide members by channel, and into so many as are written at once."""
    channels: dict[str, dict[str, bytes]] = {}
    for (channel, member), body in bodies.items():
        channels.setdefault(channel, {})[member] = body
    for channel, members in channels.items():
        names = list(members)
        for first in range(0, len(names), AT_ONCE):
            yield channel, {name: members[name] for name in names[first : first + AT_ONCE]}
