"""What the kernel's queues of sends have in common: many sockets, one call, and what each took.

A queue lies in memory that the kernel reads.  A batch of sockets is written into it by slices and
its results are compared as bytes, so no loop of Python's runs over the sockets.  Nothing stays
under way: each send is non-blocking, done within the call, and has its result when the call
returns.

A queue knows file descriptors and bytes, and nothing of streams.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from abc import ABC, abstractmethod
from array import array
from typing import ClassVar

LARGEST = 64 * 1024
"""Bytes that a batch can send to each."""


class KernelQueue(ABC):
    """A queue of its own for one process and one thread.

    Raises OSError where the kernel has none for us.
    """

    name: ClassVar[str]
    entries: ClassVar[int] = 512
    """Sockets of a batch, a power of two.  Twice as many save less than 1 % of a send."""

    def __init__(self) -> None:
        if sys.platform != "linux":
            raise OSError(errno.ENOSYS, "this is not Linux")
        # Not PyDLL: a call sends to hundreds of sockets, and other threads may run meanwhile.
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._syscall.restype = ctypes.c_long
        self._syscall.argtypes = [ctypes.c_long] * 7
        data = ctypes.create_string_buffer(LARGEST)
        self._address = ctypes.addressof(data)
        self._data = memoryview(data).cast("B")
        self._size = 0

    def send_to_each(self, descriptors: array[int], data: bytes) -> tuple[int, dict[int, int]]:
        """Send ``data``, of at most `LARGEST` bytes, to each socket without waiting for any.

        Returns to how many it was sent, and for those of them that have not taken all of it what
        they did, by descriptor: some bytes, or the negative number of an error.  To the last ones
        nothing is sent if the kernel does not take them.
        """
        size = len(data)
        self._data[:size] = data
        if size != self._size:
            self._size = size
            self._expect(size)
        sent, others = 0, {}
        while batch := descriptors[sent : sent + self.entries]:
            submitted, different = self._send(batch)
            others.update(different)
            sent += submitted
            if submitted < len(batch):
                break
        return sent, others

    @abstractmethod
    def close(self) -> None:
        """Return what the kernel holds for it."""

    @abstractmethod
    def _expect(self, size: int) -> None:
        """Have each send so many bytes from now on, and expect that as its result."""

    @abstractmethod
    def _send(self, batch: array[int]) -> tuple[int, dict[int, int]]:
        """Send to at most `entries` sockets; returns what `send_to_each` does."""

    def _call(self, number: int, *arguments: int) -> int:
        """Make a system call; raises OSError for its error, and makes it again for EINTR."""
        while True:
            done = int(self._syscall(number, *arguments, *[0] * (6 - len(arguments))))
            if done >= 0:
                return done
            if (error := ctypes.get_errno()) != errno.EINTR:
                raise OSError(error, os.strerror(error))
