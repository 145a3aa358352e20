"""What a container does that forbids system calls."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

IO_URING = (425, 426, 427)  # setup, enter and register, on all architectures
_INSTRUCTION = struct.Struct("=HBBI")  # of linux/filter.h: code, jump if true, if false, operand
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
_SET_SECCOMP, _SET_NO_NEW_PRIVS, _MODE_FILTER = 22, 38, 2


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p)]


def forbid(*numbers: int) -> None:
    """Have these system calls of the calling thread fail with EPERM, for as long as it lives."""
    code = [(_LOAD, 0, 0, 0)]
    for number in numbers:
        code += [(_JUMP_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERROR | errno.EPERM)]
    code.append((_RETURN, 0, 0, _ALLOW))
    packed = ctypes.create_string_buffer(b"".join(_INSTRUCTION.pack(*line) for line in code))
    program = _Program(len(code), ctypes.addressof(packed))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    for option in (
        (_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(program), 0, 0),
    ):
        if prctl(*option):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
