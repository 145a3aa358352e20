"""The files of `ssekit.host.shared_counters`: which are in use, and which are left behind.

Locks are those of fcntl.  They belong to the process, and closing any descriptor of a file releases
all of them: a file in which this process has a slot is never opened here.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SUFFIX = "-counters"
"""How the name of each such file ends."""
MAGIC = b"ssekit counters 1\n"
"""How each such file begins."""
HEADER = 64
"""Bytes before the first slot."""
_IDLE = 600.0
"""Seconds without a change after which a file without a process is taken for left behind."""


def is_used(file: int) -> bool:
    """Whether another process holds a slot; ours is not yet claimed."""
    try:
        fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB, 0, HEADER)
    except OSError:
        return True
    fcntl.lockf(file, fcntl.LOCK_UN, 0, HEADER)
    return False


def is_at(path: Path, file: int) -> bool:
    """Whether the open file is the one at ``path``."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.stat(path), os.fstat(file))
    return False


@contextmanager
def locked(file: int, deadline: float) -> Iterator[None]:
    """Hold the lock of byte 0.  Raises TimeoutError at ``deadline``, by the monotonic clock."""
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
            break
        except OSError:
            if time.monotonic() > deadline:
                raise TimeoutError("its lock is held by a process that does not run") from None
            time.sleep(0.005)
    try:
        yield
    finally:
        fcntl.lockf(file, fcntl.LOCK_UN, 1, 0)


def sweep(own: Path, joined: Container[str]) -> None:
    """Delete the files beside ``own`` whose processes have gone, and their server with them.

    ``joined`` has the absolute paths of those in which this process has a slot.
    """
    for path in own.parent.glob(f"*{SUFFIX}"):
        if os.path.abspath(path) in joined or path == own:
            continue  # Opened and closed here, it would lose this process's lock.
        with suppress(OSError, ValueError):
            _delete_if_left(path)


def _delete_if_left(path: Path) -> None:
    file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with locked(file, 0.0):
            ours = os.pread(file, HEADER, 0).startswith(MAGIC) and is_at(path, file)
            idle = time.time() - os.fstat(file).st_mtime > _IDLE
            if ours and idle and not is_used(file):
                path.unlink()
    finally:
        os.close(file)
