"""Many sends in one system call where io_uring is forbidden: Linux AIO (io_submit(2)).

It is older, and Docker's default seccomp profile allows it.  It was made for files, where it may
go on after the call; a write to a non-blocking socket is done within it, as `os.write` is
(which also signals SIGPIPE where a connection was reset; Python ignores that).

The layout is that of ``linux/aio_abi.h``, whose names are used.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from _socket import socketpair  # gevent's would be closed at the event loop's next turn
from array import array
from typing import NamedTuple

from ssekit.host.kernel_queue import KernelQueue

_CMD_PWRITE = 1
_IOCB = struct.Struct("=QIiHhIQQqQII")
"""data, key, rw_flags, lio_opcode, reqprio, fildes, buf, nbytes, offset, reserved, flags, resfd"""
_EVENT = struct.Struct("=QQqq")  # data, obj, res, res2


class _Numbers(NamedTuple):
    setup: int
    destroy: int
    submit: int
    getevents: int


_GENERIC = _Numbers(0, 1, 2, 4)
_NUMBERS = {
    "x86_64": _Numbers(206, 207, 209, 208),
    "aarch64": _GENERIC,
    "riscv64": _GENERIC,
}


class Aio(KernelQueue):
    """An AIO context.

    Raises OSError where the kernel has none for us: an unknown processor, a kernel that was built
    without it, a system whose ``fs.aio-max-nr`` is used up (each context counts as 512), or a
    sandbox such as gVisor that writes to files alone.
    """

    name = "aio"

    def __init__(self) -> None:
        super().__init__()
        numbers = _NUMBERS.get(os.uname().machine)
        if numbers is None or sys.maxsize < 1 << 32:
            raise OSError(errno.ENOSYS, f"not known on {os.uname().machine}")
        self._numbers = numbers
        iocbs = ctypes.create_string_buffer(_IOCB.size * self.entries)
        first = ctypes.addressof(iocbs)
        addresses = [first + _IOCB.size * slot for slot in range(self.entries)]
        for slot in range(self.entries):
            entry = (slot, 0, 0, _CMD_PWRITE, 0, 0, self._address, 0, 0, 0, 0, 0)
            _IOCB.pack_into(iocbs, _IOCB.size * slot, *entry)
        fields = memoryview(iocbs).cast("B")
        self._descriptors, self._sizes = fields.cast("i")[5::16], fields.cast("q")[4::8]
        self._pointers = array("Q", addresses)
        self._results = ctypes.create_string_buffer(_EVENT.size * self.entries)
        self._all_taken = ctypes.create_string_buffer(_EVENT.size * self.entries)
        for slot, address in enumerate(addresses):
            _EVENT.pack_into(self._all_taken, _EVENT.size * slot, slot, address, 0, 0)
        self._expected = memoryview(self._all_taken).cast("B").cast("q")[2::4]
        # Compared where they are: a copy would push others out of the nearest cache.
        self._compare = ctypes.PyDLL(None).memcmp
        self._compare.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]

        context = ctypes.c_ulong(0)
        self._call(self._numbers.setup, self.entries, ctypes.addressof(context))
        self._context = context.value
        try:
            self._try()
        except BaseException:
            self.close()
            raise

    def _try(self) -> None:
        """Raise OSError unless it writes to sockets."""
        ours, theirs = socketpair()
        try:
            sent, others = self.send_to_each(array("i", [ours.fileno()]), b"x")
        finally:
            ours.close()
            theirs.close()
        if not sent or others:
            raise OSError(errno.ENOTSUP, "it does not write to sockets")

    def close(self) -> None:
        """Return the context."""
        self._call(self._numbers.destroy, self._context)

    def _expect(self, size: int) -> None:
        self._sizes[:] = array("q", [size]) * self.entries
        self._expected[:] = array("q", [size]) * self.entries

    def _send(self, batch: array[int]) -> tuple[int, dict[int, int]]:
        self._descriptors[: len(batch)] = batch
        address, _ = self._pointers.buffer_info()
        try:
            submitted = self._call(self._numbers.submit, self._context, len(batch), address)
        except OSError:
            # It stops at a descriptor that is none, or when it has no memory, and says so only
            # of the first: whoever writes to that one learns it.
            return 0, {}
        return submitted, self._collect(batch, submitted)

    def _collect(self, batch: array[int], submitted: int) -> dict[int, int]:
        """Return the results of those that have not taken all."""
        count = 0
        while count < submitted:
            wanted = submitted - count
            place = ctypes.addressof(self._results) + _EVENT.size * count
            count += self._call(self._numbers.getevents, self._context, wanted, wanted, place)
        size = _EVENT.size * submitted
        if not self._compare(self._results, self._all_taken, size):
            return {}
        each = _EVENT.iter_unpack(ctypes.string_at(self._results, size))
        return {batch[slot]: taken for slot, _, taken, _ in each if taken != self._size}
