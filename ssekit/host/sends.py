"""The same bytes to many sockets, at once: the fan-out's speed.

Where the kernel takes a batch of sends in one call it gets batches, else a write for each.  Either
way no loop of Python's runs over the sockets.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
from collections.abc import Collection, Iterable
from functools import cache

from ssekit.host.uring import LARGEST, Uring

GONE = -1
BATCH = 32
"""Fewer sockets than this cost less with a write for each."""

_LATER = (-errno.EAGAIN, -errno.EINTR)

_log = logging.getLogger("ssekit")


def write_to_each(descriptors: Collection[int], data: bytes) -> list[int]:
    """Write ``data`` to each non-blocking socket; return how many bytes each has taken, or `GONE`.

    To be called by one thread of a process.
    """
    written = _in_batches(descriptors, data)
    if len(written) < len(descriptors):
        written += _one_by_one(itertools.islice(descriptors, len(written), None), data)
    return written


def _in_batches(descriptors: Collection[int], data: bytes) -> list[int]:
    if len(descriptors) < BATCH or len(data) > LARGEST or (uring := _uring()) is None:
        return []
    taken = uring.send_to_each(descriptors, data)
    if taken.count(len(data)) == len(taken):
        return taken
    return [count if count >= 0 else 0 if count in _LATER else GONE for count in taken]


def _one_by_one(descriptors: Iterable[int], data: bytes) -> list[int]:
    """``extend`` and ``map`` run the loop in C: an interpreted one would add a quarter.

    What ``extend`` had appended when a write failed stays in the list, and the iterator goes on
    behind the one that failed.
    """
    written: list[int] = []
    rest = iter(descriptors)
    while True:
        try:
            written.extend(map(os.write, rest, itertools.repeat(data)))
            return written
        except BlockingIOError:
            written.append(0)
        except OSError:
            written.append(GONE)


@cache
def _uring() -> Uring | None:
    """The process's own; a child that was forked makes its own."""
    if os.environ.get("SSEKIT_FANOUT") == "writes":
        return None
    try:
        return Uring()
    except OSError as error:
        _log.info("each event is one system call for each viewer: no io_uring here (%s)", error)
        return None


os.register_at_fork(after_in_child=_uring.cache_clear)
