"""What changes a ``sqlite:`` log, in SQL: a `Writer` is the work of one transaction.

An ordinary append is that of `ssekit.brokers.sqlite.appending`.  Whatever else a transaction does
begins with the `Accounts`, and brings them up to date.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from ssekit.brokers.contract import Entry, Held, Retention
from ssekit.brokers.sqlite import appending, epochs, leases
from ssekit.brokers.sqlite.accounts import Accounts
from ssekit.brokers.sqlite.appending import Known
from ssekit.brokers.sqlite.rows import END, EVENT, PASSED, VALUE, Channel, Log
from ssekit.errors import ChannelBusy, ChannelFinished, InvalidEvent


class Writer:
    """The work of one transaction, given what its connection knew before."""

    def __init__(self, db: sqlite3.Connection, known: Known | None) -> None:
        self._db = db
        self.known = known
        """What is known if the transaction is committed."""
        self._loaded: Accounts | None = None

    def done(self) -> None:
        """Do what is left to do at the end of the transaction."""
        if self._loaded is not None:
            self._loaded.done()

    @property
    def _accounts(self) -> Accounts:
        if self._loaded is None:
            self.known = None  # what it says of channels and bounds will not hold
            self._loaded = Accounts(self._db)
        return self._loaded

    def append(
        self,
        name: str,
        body: bytes,
        *,
        key: str | None = None,
        passing: bool = False,
        holder: str | None = None,
    ) -> Entry:
        if self._loaded is None:
            self.known, entry = appending.append(
                self._db, self.known, name, body, key=key, passing=passing, holder=holder
            )
            if entry is not None:
                return entry
        channel = self._unfinished(name)
        if holder is not None and channel.producer != holder:
            raise ChannelFinished(name, None)
        if passing:
            return self._store(name, body, PASSED, passing=True)
        if key is None:
            return self._keep(channel, body)
        return self._put(channel, key, body)

    def remove(self, name: str, key: str, body: bytes) -> Entry | None:
        channel = self._unfinished(name)
        value = appending.value(self._db, name, key)
        if value is None:
            return None
        self._accounts.withdraw(value[0])
        channel.keys -= 1
        return self._keep(channel, body, key)

    def finish(self, name: str, body: bytes, reason: str, holder: str | None) -> Entry | None:
        channel = self._accounts.channel(name)
        producer = channel.producer
        if channel.end is not None or (holder is not None and producer != holder):
            return None
        entry = self._store(name, body, END)
        channel.last = channel.end = self._log.tip
        channel.ended, channel.reason, channel.producer = entry.time, reason, None
        self._accounts.save(channel)
        if producer is not None:
            leases.release(self._db, producer, Held(name))
        self._accounts.bound()
        return entry

    def reopen(self, name: str) -> bool:
        channel = self._accounts.channel(name)
        if channel.end is None:
            return False
        self._accounts.forget_end(channel)
        self._accounts.trim(channel)
        return True

    def produce(self, name: str, holder: str) -> None:
        leases.check(self._db, holder)
        channel = self._unfinished(name)
        if channel.producer is not None:
            raise ChannelBusy(name)
        channel.producer, channel.produced = holder, 1
        self._accounts.save(channel)
        leases.hold(self._db, holder, Held(name))

    def join(self, members: Mapping[tuple[str, str], bytes], holder: str) -> None:
        leases.check(self._db, holder)
        for (name, member), body in members.items():
            held, value = Held(name, member), appending.value(self._db, name, member)
            if value is None or value[1] != body or not leases.is_held(self._db, held):
                self.append(name, body, key=member)
            leases.hold(self._db, holder, held)

    def leave(self, members: Mapping[tuple[str, str], bytes], holder: str) -> None:
        for (name, member), body in members.items():
            held = Held(name, member)
            if leases.release(self._db, holder, held) and not leases.is_held(self._db, held):
                self.remove(name, member, body)

    def beat(self, holder: str, *, first: bool = False) -> bool:
        return leases.beat(self._db, holder, first)

    def end_lease(self, holder: str, beats: int) -> bool:
        return leases.end(self._db, holder, beats)

    def change_retention(self, given: Retention) -> None:
        self._accounts.change_retention(given)

    @property
    def _log(self) -> Log:
        return self._accounts.log

    def _unfinished(self, name: str) -> Channel:
        channel = self._accounts.channel(name)
        if channel.end is not None:
            raise ChannelFinished(name, channel.reason)
        return channel

    def _check_keys(self, channel: Channel) -> None:
        most = self._log.max_keys
        if channel.keys >= most and not channel.internal:
            raise InvalidEvent(
                f"the channel {channel.name!r} has {most} keys already: remove some, or let it"
                " have more with Hub(max_keys=...)"
            )

    def _store(
        self, name: str, body: bytes, kept: int, *, key: str | None = None, passing: bool = False
    ) -> Entry:
        if self._log.boot != epochs.boot_of_machine():
            epochs.begin(self._db, self._log)
        return appending.insert(
            self._db, self._log, name, body, key=key, kept=kept, passing=passing
        )

    def _keep(self, channel: Channel, body: bytes, key: str | None = None) -> Entry:
        entry = self._store(channel.name, body, EVENT, key=key)
        channel.last = self._log.tip
        channel.events += 1
        self._accounts.trim(channel)
        return entry

    def _put(self, channel: Channel, key: str, body: bytes) -> Entry:
        superseded = appending.value(self._db, channel.name, key)
        if superseded is None:
            self._check_keys(channel)
            channel.keys += 1
        else:
            self._accounts.withdraw(superseded[0])
        entry = self._store(channel.name, body, VALUE, key=key)
        channel.last = self._log.tip
        self._accounts.save(channel)
        return entry
