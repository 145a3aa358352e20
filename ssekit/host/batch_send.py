"""The same bytes to many sockets, at once: the fan-out's speed.

Where the kernel takes a batch of sends in one call it gets batches, else a write for each.  In no
case does a loop of Python's run over the sockets.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
from array import array
from functools import cache

from ssekit.host.aio import Aio
from ssekit.host.io_uring import Uring
from ssekit.host.kernel_queue import LARGEST, KernelQueue

GONE = -1
BATCH = 32
"""Fewer sockets than this cost less with a write for each."""

WAYS: dict[str, list[type[KernelQueue]]] = {
    "io_uring": [Uring, Aio],
    "aio": [Aio],
    "writes": [],
}
"""The queues to try, cheapest first, for each value of ``SSEKIT_FANOUT``; then it is writes."""

_LATER = (-errno.EAGAIN, -errno.EINTR)

_log = logging.getLogger("ssekit")


def prepare() -> None:
    """Make now what `write_to_each` needs in this process, and not when many wait for it."""
    _queue()


def write_to_each(descriptors: array[int], data: bytes) -> dict[int, int]:
    """Write ``data`` to each non-blocking socket.

    Returns for those that have not taken all of it how many bytes they have, or `GONE`, by
    descriptor.  To be called by one thread of a process.
    """
    sent = 0
    others: dict[int, int] = {}
    if len(descriptors) >= BATCH and len(data) <= LARGEST and (queue := _queue()) is not None:
        sent, others = queue.send_to_each(descriptors, data)
        for descriptor, count in others.items():
            if count < 0:
                others[descriptor] = 0 if count in _LATER else GONE
    if sent < len(descriptors):
        others |= _one_by_one(descriptors[sent:], data)
    return others


def _one_by_one(descriptors: array[int], data: bytes) -> dict[int, int]:
    """``extend`` and ``map`` run the loop in C: an interpreted one would add a quarter.

    What ``extend`` had appended when a write failed stays in the list, and the iterator goes on
    after the one that failed.
    """
    size = len(data)
    written: list[int] = []
    rest = iter(descriptors)
    while len(written) < len(descriptors):
        try:
            written.extend(map(os.write, rest, itertools.repeat(data)))
        except BlockingIOError:
            written.append(0)
        except OSError:
            written.append(GONE)
    if written.count(size) == len(written):
        return {}
    each = zip(descriptors, written, strict=True)
    return {descriptor: count for descriptor, count in each if count != size}


@cache
def _queue() -> KernelQueue | None:
    """The process's own; a child that was forked makes its own."""
    queue, missing = None, []
    for kind in WAYS.get(os.environ.get("SSEKIT_FANOUT", ""), WAYS["io_uring"]):
        try:
            queue = kind()
            break
        except OSError as error:
            missing.append(f"no {kind.name} here ({error})")
    if missing:
        way = "writes" if queue is None else queue.name
        _log.info("events are sent with %s: %s", way, ", ".join(missing))
    return queue


os.register_at_fork(after_in_child=_queue.cache_clear)
