"""``memory:``, a log in this process alone.

For one process, for tests, and the plainest reading of the contract.  A fork's child gets an empty
log with an epoch of its own: two processes that went on counting from the same log would give one
id to two events.
"""

from __future__ import annotations

import errno
import os
import time
from _socket import AF_UNIX, SOCK_DGRAM
from _socket import socket as NativeSocket  # noqa: N812 - a patched one belongs to one thread
from collections.abc import Collection

from ssekit.brokers.codec import as_stored, entry_of, id_of, seq_in
from ssekit.brokers.contract import BATCH, CHANNELS_REMEMBERED, Broker, Entry, HistoryLost
from ssekit.errors import HubClosed
from ssekit.host.forks import on_fork
from ssekit.host.wakeup import NativeLock, Wakeups
from ssekit.wire import Event

_SCAN = 5000  # entries that one read looks at, so that it stays short in a long log


class MemoryBroker(Broker):
    _last_epoch = (0, 0)  # of which process, and what

    def __init__(self, history: int) -> None:
        self._history = history
        self._closed = False
        self._wakeups = Wakeups()
        self._begin()
        on_fork(self)

    @classmethod
    def from_url(cls, url: str, history: int) -> MemoryBroker:
        if url not in ("memory:", "memory://"):
            raise ValueError(f"{url!r}: memory: has no parts")
        return cls(history)

    def _begin(self) -> None:
        self._lock = NativeLock()
        self._epoch = self._new_epoch()
        self._tip = 0
        self._entries: dict[int, Entry] = {}  # by seq, oldest first
        self._trimmed = Trimmed()

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

    def append(self, channel: str, event: Event) -> Event:
        event = as_stored(event)
        with self._lock:
            self._check_open()
            seq = self._tip + 1
            entry = entry_of(channel, event, id_of(self._epoch, seq))
            self._entries[seq] = entry
            self._tip = seq
            gone = self._entries.pop(seq - self._history, None)
            if gone is not None:
                self._trimmed.add(gone.channel, seq - self._history)
        self._wakeups.notify()
        return entry.event

    def read(self, channels: Collection[str], after: str, limit: int) -> tuple[list[Entry], str]:
        with self._lock:
            self._check_open()
            seq = seq_in(after, self._epoch, self._tip)
            if self._trimmed.reached(channels) > seq:
                raise HistoryLost(f"the log was trimmed behind {after}")
            seq = max(seq, self._tip - self._history)
            entries: list[Entry] = []
            end = min(self._tip, seq + _SCAN)
            while seq < end and len(entries) < limit:
                seq += 1
                if self._entries[seq].channel in channels:
                    entries.append(self._entries[seq])
            return entries, id_of(self._epoch, seq)

    def follow(self, after: str, timeout: float) -> tuple[list[Entry], str]:
        deadline = time.monotonic() + timeout
        with self._wakeups.waiting() as wakeup:
            while not (entries := self._newer(after)):
                left = deadline - time.monotonic()
                if left <= 0:
                    return [], after
                wakeup.wait(left)
        return entries, entries[-1].id

    def _newer(self, after: str) -> list[Entry]:
        with self._lock:
            self._check_open()
            seq = seq_in(after, self._epoch, self._tip)
            if seq < self._tip - self._history:
                raise HistoryLost(f"the log was trimmed behind {after}")
            return [self._entries[n] for n in range(seq + 1, min(self._tip, seq + BATCH) + 1)]

    def tip(self) -> str:
        with self._lock:
            self._check_open()
            return id_of(self._epoch, self._tip)

    def close(self) -> None:
        self._closed = True
        self._wakeups.close()

    def _check_open(self) -> None:
        if self._closed:
            raise HubClosed("the hub is closed")


_claims: dict[int, NativeSocket] = {}
"""By process: what holds the name that `first_of_its_server` claims, until the process ends."""


def first_of_its_server() -> bool:
    """Whether no other process of the same parent has asked before, so that one speaks for all.

    The claim is a name that the kernel forgets with its owner.  Only Linux has such names:
    elsewhere everybody is the first.
    """
    if os.getpid() in _claims:
        return True
    claim = NativeSocket(AF_UNIX, SOCK_DGRAM)
    try:
        space = os.stat("/proc/self/ns/pid").st_ino  # containers may have such names in common
        claim.bind(f"\0ssekit-memory-{space}-{os.getuid()}-{os.getppid()}")
    except OSError as error:
        claim.close()
        return error.errno != errno.EADDRINUSE
    _claims[os.getpid()] = claim
    return True


class Trimmed:
    """The seq up to which each channel was trimmed, and a floor for channels not remembered."""

    def __init__(self) -> None:
        self._seqs: dict[str, int] = {}  # the longest ago first
        self._floor = 0

    def add(self, channel: str, seq: int) -> None:
        self._seqs.pop(channel, None)
        self._seqs[channel] = seq
        if len(self._seqs) > CHANNELS_REMEMBERED:
            self._floor = self._seqs.pop(next(iter(self._seqs)))

    def reached(self, channels: Collection[str]) -> int:
        return max((self._seqs.get(channel, self._floor) for channel in channels), default=0)
