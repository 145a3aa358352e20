"""Many sends in one system call: a submission queue shared with the Linux kernel (io_uring(7)).

The fan-out sends the same bytes to hundreds of sockets in a row.  Most of what that costs beside
the kernel's work on TCP is crossing into the kernel, and Python's part, once for each.  Here one
call sends to all of a batch and leaves there what each has taken.

Many containers forbid io_uring (Docker's seccomp profile does), and administrators may
(``kernel.io_uring_disabled``); then `Uring` cannot be made.

The layout is that of ``linux/io_uring.h``, whose names are used.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import struct
from array import array

from ssekit.host.kernel_queue import KernelQueue

_SETUP, _ENTER = 425, 426  # __NR_io_uring_setup and _enter, on all architectures of today
_NATIVE_WORKERS = 1 << 9  # a feature of Linux 5.12
_GETEVENTS = 1 << 0
_OFF_SQES = 0x10000000
_OP_SEND = 26
_SQE = struct.Struct("=BBHiQQIIQ24x")  # opcode, flags, ioprio, fd, off, addr, len, msg_flags, user
_CQE = struct.Struct("=QiI")  # user_data, res, flags


class _SqOffsets(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_uint32) for name in ("head", "tail", "ring_mask", "ring_entries")),
        *((name, ctypes.c_uint32) for name in ("flags", "dropped", "array", "resv1")),
        ("user_addr", ctypes.c_uint64),
    ]


class _CqOffsets(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_uint32) for name in ("head", "tail", "ring_mask", "ring_entries")),
        *((name, ctypes.c_uint32) for name in ("overflow", "cqes", "flags", "resv1")),
        ("user_addr", ctypes.c_uint64),
    ]


class _Params(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_uint32) for name in ("sq_entries", "cq_entries", "flags")),
        *((name, ctypes.c_uint32) for name in ("sq_thread_cpu", "sq_thread_idle", "features")),
        ("wq_fd", ctypes.c_uint32),
        ("resv", ctypes.c_uint32 * 3),
        ("sq_off", _SqOffsets),
        ("cq_off", _CqOffsets),
    ]


class Uring(KernelQueue):
    """A submission queue and its completion queue.

    Raises OSError where the kernel has none for us: before Linux 5.12 (where its memory counts as
    locked, of which few processes may have much), or forbidden.
    """

    name = "io_uring"

    def __init__(self) -> None:
        super().__init__()
        self._mask = self.entries - 1
        params = _Params()
        self._ring = self._call(_SETUP, self.entries, ctypes.addressof(params))
        try:
            if not params.features & _NATIVE_WORKERS:
                raise OSError(errno.ENOSYS, "io_uring is older than Linux 5.12")
            self._map(params)
        except BaseException:
            os.close(self._ring)
            raise

    def _map(self, params: _Params) -> None:
        """Map both queues, by the offsets that the kernel gave, and fill in what never changes."""
        sq, cq = params.sq_off, params.cq_off
        size = max(sq.array + 4 * params.sq_entries, cq.cqes + _CQE.size * params.cq_entries)
        rings = memoryview(mmap.mmap(self._ring, size))
        words = rings[: size & ~3].cast("I")
        self._sq_head, self._sq_tail = words[sq.head // 4 :], words[sq.tail // 4 :]
        self._cq_head, self._cq_tail = words[cq.head // 4 :], words[cq.tail // 4 :]
        self._completions = rings[cq.cqes : cq.cqes + _CQE.size * params.cq_entries]
        # Each send takes one place in either queue, and has its result in the place of its slot.
        self._all_taken = bytearray().join(
            _CQE.pack(place & self._mask, 0, 0) for place in range(params.cq_entries)
        )
        self._places = int(params.cq_entries)

        submissions = mmap.mmap(self._ring, _SQE.size * self.entries, offset=_OFF_SQES)
        message = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
        for slot in range(self.entries):
            words[sq.array // 4 + slot] = slot
            entry = (_OP_SEND, 0, 0, -1, 0, self._address, 0, message, slot)
            _SQE.pack_into(submissions, _SQE.size * slot, *entry)
        fields = memoryview(submissions).cast("i")
        self._descriptors, self._sizes = fields[1::16], fields[6::16]

    def close(self) -> None:
        """Close the ring; its memory goes with the object."""
        os.close(self._ring)

    def _expect(self, size: int) -> None:
        self._sizes[:] = array("i", [size]) * self.entries
        memoryview(self._all_taken).cast("i")[2::4] = array("i", [size]) * self._places

    def _send(self, batch: array[int]) -> tuple[int, dict[int, int]]:
        tail = self._sq_tail[0]
        submitted = self._submit(batch, tail)
        return submitted, self._collect(batch[:submitted], tail)

    def _submit(self, batch: array[int], tail: int) -> int:
        first = tail & self._mask
        end = min(first + len(batch), self.entries)
        self._descriptors[first:end] = batch[: end - first]
        self._descriptors[: len(batch) - (end - first)] = batch[end - first :]
        self._sq_tail[0] = (tail + len(batch)) & 0xFFFFFFFF
        submitted = 0
        while submitted < len(batch):
            # It stops at an invalid descriptor, whose result says that it is one.
            try:
                taken = self._enter(len(batch) - submitted)
            except OSError:
                taken = 0
            if not taken:
                self._sq_tail[0] = self._sq_head[0]
                break
            submitted += taken
        return submitted

    def _collect(self, batch: array[int], first: int) -> dict[int, int]:
        """Return the results of those in the batch that have not taken all."""
        head = self._cq_head[0]
        while (self._cq_tail[0] - head) & 0xFFFFFFFF < len(batch):
            self._enter(0, len(batch))
        begin = head % self._places
        end = min(begin + len(batch), self._places)
        others = {}
        for places in (begin, end), (0, begin + len(batch) - end):
            part = slice(*(_CQE.size * place for place in places))
            results = self._completions[part].tobytes()
            if results != self._all_taken[part]:
                for slot, result, _ in _CQE.iter_unpack(results):
                    if result != self._size:
                        others[batch[(slot - first) & self._mask]] = result
        self._cq_head[0] = (head + len(batch)) & 0xFFFFFFFF
        return others

    def _enter(self, submit: int, wait: int = 0) -> int:
        return self._call(_ENTER, self._ring, submit, wait, _GETEVENTS)
