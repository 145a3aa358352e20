"""``sqlite:``, a log in a file, for every process of one machine.

Workers, CGI scripts, cron jobs and the command line share it: the file is in WAL mode, so readers
never wait for a writer, and an append wakes the followers of other processes
(`ssekit.brokers.other_processes`).  Each call is one transaction
(`ssekit.brokers.sqlite.transactions`); what is in the file is known to
`ssekit.brokers.sqlite.reading` and `ssekit.brokers.sqlite.writing`.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Collection, Mapping
from typing import TypeVar
from urllib.parse import unquote_to_bytes

from ssekit.brokers.contract import Broker, Entry, Held, HistoryLost, Opening, Retention, Status
from ssekit.brokers.other_processes import OtherProcesses, SocketWakeup
from ssekit.brokers.sqlite import leases, reading
from ssekit.brokers.sqlite.appending import Known, append_alone
from ssekit.brokers.sqlite.file import NoLog
from ssekit.brokers.sqlite.transactions import Transactions
from ssekit.brokers.sqlite.writing import Writer
from ssekit.host.forks import on_fork
from ssekit.host.wakeup import Wakeups

T = TypeVar("T")

_POLL = 1.0  # seconds after which a follower looks at the file though it was not woken
_POLL_ALONE = 0.1  # the same where other processes cannot wake it


class SQLiteBroker(Broker):
    def __init__(self, path: str, retention: Retention) -> None:
        self._retention = retention
        path = os.path.abspath(path)
        self._log = Transactions(path, retention)
        self._others = OtherProcesses(os.path.realpath(path))  # the same by any name
        self._wakeups = Wakeups(self._others.wakeup)
        on_fork(self)

    @classmethod
    def from_url(cls, url: str, retention: Retention) -> SQLiteBroker:
        path = os.fsdecode(unquote_to_bytes(url.removeprefix("sqlite:///")))
        if not url.startswith("sqlite:///") or not path or path == ":memory:" or "\0" in path:
            raise ValueError(f"{url!r}: write sqlite:///relative.db or sqlite:////absolute.db")
        if "?" in url or "#" in url:
            # Elsewhere an option would follow; here it would become a part of the file's name.
            raise ValueError(f"{url!r}: sqlite:/// has no options; a name is quoted (%3F, %23)")
        return cls(path, retention)

    def after_fork(self) -> None:
        self._wakeups.abandon()
        self._others.abandon()

    # -- writing

    def append(
        self,
        channel: str,
        body: bytes,
        *,
        key: str | None = None,
        passing: bool = False,
        holder: str | None = None,
    ) -> Entry:
        def work(writer: Writer) -> Entry:
            return writer.append(channel, body, key=key, passing=passing, holder=holder)

        def alone(db: sqlite3.Connection, known: Known) -> Entry | None:
            return append_alone(db, known, channel, body, passing=passing, holder=holder)

        entry = self._log.write(work, create=True, anew=True, alone=alone if key is None else None)
        return self._notifying(entry)

    def remove(self, channel: str, key: str, body: bytes) -> Entry | None:
        return self._notifying(self._change(lambda log: log.remove(channel, key, body), None))

    def finish(
        self, channel: str, body: bytes, reason: str, *, holder: str | None = None
    ) -> Entry | None:
        def work(writer: Writer) -> Entry | None:
            return writer.finish(channel, body, reason, holder)

        return self._notifying(self._log.write(work, create=True))

    def reopen(self, channel: str) -> bool:
        return self._change(lambda log: log.reopen(channel), False)

    def produce(self, channel: str, holder: str) -> None:
        self._log.write(lambda log: log.produce(channel, holder), create=True)

    def join(self, members: Mapping[tuple[str, str], bytes], holder: str) -> None:
        self._notifying(self._log.write(lambda log: log.join(members, holder), create=True))

    def leave(self, members: Mapping[tuple[str, str], bytes], holder: str) -> None:
        self._notifying(self._change(lambda log: log.leave(members, holder), None))

    def beat(self, holder: str, *, first: bool = False) -> bool:
        if first:
            return self._log.write(lambda log: log.beat(holder, first=True), create=True)
        return self._change(lambda log: log.beat(holder), False)

    def end_lease(self, holder: str, beats: int) -> bool:
        return self._change(lambda log: log.end_lease(holder, beats), True)

    # -- reading

    def read(self, channels: Collection[str], after: str, limit: int) -> tuple[list[Entry], str]:
        return self._read_from(after, lambda db: reading.read(db, channels, after, limit))

    def follow(self, after: str, timeout: float) -> tuple[list[Entry], str]:
        deadline = time.monotonic() + timeout
        entries = self._newer(after)  # what is foreign is found out before anything is made there
        if not entries:
            with self._wakeups.waiting() as wakeup:
                seconds = _POLL if isinstance(wakeup, SocketWakeup) else _POLL_ALONE
                while not (entries := self._newer(after)):
                    remaining = deadline - time.monotonic()
                    if remaining <= 0:
                        return [], after
                    wakeup.wait(min(remaining, seconds))
        return entries, entries[-1].id

    def _newer(self, after: str) -> list[Entry]:
        return self._read_from(after, lambda db: reading.newer(db, after))

    def recent(self, limit: int) -> tuple[list[Entry], str]:
        return self._log.read(lambda db: reading.recent(db, limit), create=True)

    def opening(self, channels: Collection[str], replay: int | None) -> Opening:
        def work(db: sqlite3.Connection) -> Opening:
            return reading.opening(db, channels, replay)

        return self._log.read(work, create=True)

    def history(self, channels: Collection[str], limit: int, before: str | None) -> list[Entry]:
        def work(db: sqlite3.Connection) -> list[Entry]:
            return reading.history(db, channels, limit, before)

        return self._read(work, []) if before is None else self._read_from(before, work)

    def ends(self, channels: Collection[str]) -> dict[str, Entry]:
        return self._read(lambda db: reading.ends(db, channels), {})

    def status(self, channel: str) -> Status:
        return self._read(lambda db: reading.status(db, channel), Status("open"))

    def tip(self) -> str:
        return self._log.read(reading.tip, create=True)

    def retention(self) -> Retention:
        found = self._read(reading.retention, self._retention)
        return found.changed_by(self._retention)

    def leases(self) -> dict[str, int]:
        return self._read(leases.all_leases, {})

    def held(self, holder: str) -> list[Held]:
        return self._read(lambda db: leases.held(db, holder), [])

    def close(self) -> None:
        self._log.close()
        self._wakeups.close()
        self._others.close()

    def _notifying(self, result: T) -> T:
        self._wakeups.notify()
        self._others.notify()
        return result

    def _change(self, work: Callable[[Writer], T], empty: T) -> T:
        """Do the work of a writer; ``empty`` is what it comes to where there is no log."""
        try:
            return self._log.write(work)
        except NoLog:
            return empty

    def _read(self, work: Callable[[sqlite3.Connection], T], empty: T) -> T:
        try:
            return self._log.read(work)
        except NoLog:
            return empty

    def _read_from(self, cursor: str, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return self._log.read(work)
        except NoLog:
            raise HistoryLost(f"{cursor!r:.80} is not in the log, which is empty") from None
