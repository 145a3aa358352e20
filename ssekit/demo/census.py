"""How many streams are open on a server, counted over all of its worker processes.

Each worker keeps its own count in a small file that it holds locked; a file whose lock is free was
left by a worker that died.  `ssekit.demo.app` asks for the sum when a page does.  This module does
not know what it counts, and a server of one process needs no file at all.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

EVERY = 0.5
"""Seconds between two looks at a worker's own count."""


class Census:
    """The counts of the workers that one master process has started.

    ``count`` returns the count of this process.  ``folder`` is where the workers meet; the default
    is a folder of this user's in the system's place for temporary files, named after the parent
    process, which is the same for all workers of a server.
    """

    def __init__(self, count: Callable[[], int], folder: Path | None = None) -> None:
        self._count = count
        self._folder = folder
        self._process: int | None = None
        self._file: int = -1

    def take(self, *, alone: bool) -> tuple[int, int]:
        """Return how many there are and in how many processes.

        ``alone`` says that this process is the server's only one.
        """
        if alone or not self._join():
            return self._count(), 1
        counts = [self._count(), *self._others()]
        return sum(counts), len(counts)

    def join(self) -> None:
        """Let the other workers see this process's count from now on."""
        self._join()

    def _join(self) -> bool:
        if self._process != os.getpid():
            # Also after a fork: the file that was held until now is the parent's.
            self._process = os.getpid()
            self._file = self._open()
            if self._file >= 0:
                threading.Thread(target=self._keep, name="ssekit-census", daemon=True).start()
        return self._file >= 0

    def _open(self) -> int:
        """Make this process's file, locked before it has the name that others look for."""
        folder = self._folder or _own_folder()
        if folder is None:
            return -1
        self._folder = folder
        unnamed = folder / f".{os.getpid()}"
        try:
            folder.mkdir(exist_ok=True)
            file = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(file, _number(self._count()))
            unnamed.rename(folder / str(os.getpid()))
        except OSError:
            return -1  # A full or read-only disk: a count of this process is better than none.
        return file

    def _keep(self) -> None:
        process, known = self._process, -1
        while self._process == process:
            if (now := self._count()) != known:
                os.pwrite(self._file, _number(now), 0)
                known = now
            time.sleep(EVERY)

    def _others(self) -> list[int]:
        assert self._folder is not None  # noqa: S101 (this process's own file is in it)
        names = {path.name for path in self._folder.iterdir()} - {str(os.getpid())}
        counts = [_read(self._folder / name) for name in names if name.isdecimal()]
        return [count for count in counts if count is not None]


def _number(count: int) -> bytes:
    return b"%10d" % count


def _read(path: Path) -> int | None:
    """Return the count in a worker's file; remove the file, and return None, if it is dead."""
    with contextlib.suppress(OSError, ValueError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(file.read())
        path.unlink()
    return None


def _own_folder() -> Path | None:
    """Return the folder of this server, in one that nobody else can write to; else None."""
    base = Path(tempfile.gettempdir(), f"ssekit-{os.getuid()}")
    with contextlib.suppress(OSError):
        base.mkdir(mode=0o700, exist_ok=True)
        found = base.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid():
            return base / str(os.getppid())
    return None
