"""``memory:``, a log in this process alone, for one process and for tests.

A fork's child gets an empty log with an epoch of its own: two processes that went on counting from
the same log would give one id to two events.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping

from ssekit.brokers.contract import (
    Broker,
    Entry,
    Held,
    Opening,
    Retention,
    Status,
)
from ssekit.brokers.interrupted import NotInterrupting
from ssekit.brokers.memory.leases import Leases
from ssekit.brokers.memory.log import MemoryLog
from ssekit.errors import HubClosed
from ssekit.host.forks import on_fork
from ssekit.host.wakeup import NativeLock, Wakeups


class MemoryBroker(Broker):
    _last_epoch = (0, 0)  # of which process, and what

    def __init__(self, retention: Retention) -> None:
        self._retention = retention
        self._closed = False
        self._wakeups = Wakeups()
        self._begin()
        on_fork(self)

    @classmethod
    def from_url(cls, url: str, retention: Retention) -> MemoryBroker:
        if url not in ("memory:", "memory://"):
            raise ValueError(f"{url!r}: memory: has no parts")
        return cls(retention)

    def _begin(self) -> None:
        self._lock = NativeLock()
        self._once = NotInterrupting()
        self._log = MemoryLog(self._new_epoch(), self._retention)
        self._leases = Leases()

    @classmethod
    def _new_epoch(cls) -> int:
        """Now, moved within its second to a place that neighbouring processes do not share.

        The workers of one server start within the same milliseconds, and a viewer of one may come
        back to another: their logs must differ.
        """
        pid, now = os.getpid(), time.time_ns() // 1_000_000
        of, last = cls._last_epoch
        epoch = max(now - now % 1000 + pid % 1000, last + 1 if of == pid else 0)
        cls._last_epoch = (pid, epoch)
        return epoch

    def after_fork(self) -> None:
        self._wakeups.abandon()
        self._begin()

    def append(
        self,
        channel: str,
        body: bytes,
        *,
        key: str | None = None,
        passing: bool = False,
        holder: str | None = None,
    ) -> Entry:
        with self._lock, self._once:
            entry = self._opened().append(channel, body, key, passing, holder)
        self._wakeups.notify()
        return entry

    def remove(self, channel: str, key: str, body: bytes) -> Entry | None:
        with self._lock, self._once:
            entry = self._opened().remove(channel, key, body)
        self._wakeups.notify()
        return entry

    def finish(
        self, channel: str, body: bytes, reason: str, *, holder: str | None = None
    ) -> Entry | None:
        with self._lock, self._once:
            log = self._opened()
            producer = log.producer(channel)
            entry = log.finish(channel, body, reason, holder)
            if entry is not None and producer is not None:
                self._leases.release(Held(channel), producer)
        self._wakeups.notify()
        return entry

    def reopen(self, channel: str) -> bool:
        with self._lock, self._once:
            return self._opened().reopen(channel)

    def read(self, channels: Collection[str], after: str, limit: int) -> tuple[list[Entry], str]:
        with self._lock, self._once:
            return self._opened().read(channels, after, limit)

    def follow(self, after: str, timeout: float) -> tuple[list[Entry], str]:
        deadline = time.monotonic() + timeout
        with self._wakeups.waiting() as wakeup:
            while not (entries := self._newer(after)):
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return [], after
                wakeup.wait(remaining)
        return entries, entries[-1].id

    def _newer(self, after: str) -> list[Entry]:
        with self._lock, self._once:
            return self._opened().follow(after)

    def recent(self, limit: int) -> tuple[list[Entry], str]:
        with self._lock, self._once:
            return self._opened().recent(limit)

    def opening(self, channels: Collection[str], replay: int | None) -> Opening:
        with self._lock, self._once:
            return self._opened().opening(channels, replay)

    def history(self, channels: Collection[str], limit: int, before: str | None) -> list[Entry]:
        with self._lock, self._once:
            return self._opened().history(channels, limit, before)

    def ends(self, channels: Collection[str]) -> dict[str, Entry]:
        with self._lock, self._once:
            return self._opened().ends(channels)

    def status(self, channel: str) -> Status:
        with self._lock, self._once:
            return self._opened().status(channel)

    def tip(self) -> str:
        with self._lock, self._once:
            return self._opened().tip()

    def retention(self) -> Retention:
        return self._retention

    def beat(self, holder: str, *, first: bool = False) -> bool:
        with self._lock, self._once:
            self._opened()
            return self._leases.beat(holder, first)

    def leases(self) -> dict[str, int]:
        with self._lock, self._once:
            self._opened()
            return self._leases.all()

    def end_lease(self, holder: str, beats: int) -> bool:
        with self._lock, self._once:
            self._opened()
            return self._leases.end(holder, beats)

    def held(self, holder: str) -> list[Held]:
        with self._lock, self._once:
            self._opened()
            return self._leases.held(holder)

    def produce(self, channel: str, holder: str) -> None:
        with self._lock, self._once:
            log = self._opened()
            self._leases.check(holder)
            log.produce(channel, holder)
            self._leases.hold(holder, Held(channel))

    def join(self, members: Mapping[tuple[str, str], bytes], holder: str) -> None:
        with self._lock, self._once:
            log = self._opened()
            self._leases.check(holder)
            for (channel, member), body in members.items():
                held = Held(channel, member)
                if not (self._leases.is_held(held) and log.value(channel, member) == body):
                    log.append(channel, body, member, False, None)
                self._leases.hold(holder, held)
        self._wakeups.notify()

    def leave(self, members: Mapping[tuple[str, str], bytes], holder: str) -> None:
        with self._lock, self._once:
            log = self._opened()
            for (channel, member), body in members.items():
                held = Held(channel, member)
                if self._leases.has(holder, held):
                    self._leases.release(held, holder)
                    if not self._leases.is_held(held):
                        log.remove(channel, member, body)
        self._wakeups.notify()

    def close(self) -> None:
        self._closed = True
        self._wakeups.close()

    def _opened(self) -> MemoryLog:
        if self._closed:
            raise HubClosed("the hub is closed")
        return self._log
