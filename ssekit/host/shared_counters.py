"""Named numbers that all processes of a server share, so that any of them can tell the sum.

The demo's number of open streams is one, and metrics are others.  gunicorn loads an application in
each worker, after the fork, so that workers inherit nothing from each other: what they share is a
file, mapped into the memory of each.  It has a slot of 64-bit numbers for each process.  A process
holds a lock on its slot's first byte (fcntl), which the kernel releases when the process ends,
however it ends.  So nothing has to be cleaned up after a process that was killed:

- A *counter* only grows.  It stays in the sum when its process has ended; the process that takes
  the slot next goes on counting from there.
- A *gauge* says how many there are now.  It counts only while its process lives.

Reading waits for no lock and writes nothing.  Only a process that holds the lock of byte 0 creates,
replaces or deletes the file, or takes a slot.  A new server begins with a new file; a worker that
its master starts again continues with the old one, even if it was the only one.  That is why the
last process to end does not delete the file: it may be about to be replaced.  Files that no process
uses any more are deleted by the next process that opens another one in the same folder.

This module knows no hub and no stream.  Where there can be no file, a process counts for itself.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import mmap
import os
import stat
import time
import weakref
import zlib
from _thread import RLock
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ssekit.host.counter_files import HEADER, MAGIC, is_at, is_used, locked, sweep

SLOTS = 256
_PID, _PARENT, _FIRST = 0, 1, 2
"""The words of a slot: the process in it, that process's parent, and the numbers from there on."""
_PATIENCE = 1.0
"""Seconds to wait for the lock of byte 0, which is held for moments."""

log = logging.getLogger("ssekit.hub")
_joined: dict[str, SharedCounters] = {}
# The interpreter's own lock: it is held for moments, and gevent's would park the caller.
_lock = RLock()


class SharedCounters:
    """The numbers of this process, and the sums over all processes that share ``path``.

    ``counters`` and ``gauges`` are the names of the numbers, the same in each process; others make
    another file, not a wrong sum.  ``path`` has to end in `SUFFIX`, and is None for a process that
    counts for itself.  There is one of a path in a process, because closing any descriptor of a
    file releases all of the process's locks on it (POSIX): use `join`.
    """

    def __init__(self, path: Path | None, counters: Sequence[str], gauges: Sequence[str]) -> None:
        self._path = path
        self._names = (*counters, *gauges)
        self._gauges = frozenset(gauges)
        self._words = {name: _FIRST + number for number, name in enumerate(self._names)}
        self._width = _FIRST + len(self._names)
        self._size = HEADER + SLOTS * self._width * 8
        marks = ",".join(self._names).encode()
        self._header = (MAGIC + b"%08x" % zlib.crc32(marks)).ljust(HEADER, b"\0")
        self._file = -1
        self._slot = 0
        self._map: mmap.mmap | None = None
        # This process's alone, until there is a file.
        self._all = memoryview(bytearray(self._width * 8)).cast("q")
        self._own = self._all
        self._before: dict[str, int] = {}  # what the processes before this one in its slot counted
        self._entered = False  # by this process; its children begin with false
        self._uses = 0
        _instances.add(self)

    def add(self, name: str, amount: int = 1) -> None:
        """Add to a number of this process."""
        with _lock:
            if not self._entered:
                self._enter()
            self._own[self._words[name]] += amount

    def change(
        self, amounts: Iterable[tuple[str, int]], values: Iterable[tuple[str, int]] = ()
    ) -> None:
        """Add to some numbers of this process and set some of its gauges, at once."""
        with _lock:
            if not self._entered:
                self._enter()
            own, words = self._own, self._words
            for name, amount in amounts:
                own[words[name]] += amount
            for name, value in values:
                own[words[name]] = value

    def set(self, name: str, value: int) -> None:
        """Set a gauge of this process."""
        with _lock:
            if not self._entered:
                self._enter()
            self._own[self._words[name]] = value

    def totals(self) -> tuple[Mapping[str, int], int]:
        """Return the sums by name, and of how many processes they are."""
        with _lock:
            if not self._entered:
                self._enter()
            return self._sums()

    def details(self) -> tuple[Mapping[str, int], Mapping[int, Mapping[str, int]]]:
        """Return the sums by name, and the numbers of each process that lives, by its pid.

        The counters of another process begin with those of the ended ones that it has taken over.
        """
        with _lock:
            if not self._entered:
                self._enter()
            return self._sums()[0], self._of_each()

    def own(self) -> Mapping[str, int]:
        """Return the numbers of this process alone."""
        with _lock:
            before = self._before
            return {
                name: self._own[word] - before.get(name, 0) for name, word in self._words.items()
            }

    def _of_each(self) -> dict[int, Mapping[str, int]]:
        if self._map is None:
            return {os.getpid(): self.own()}
        found: dict[int, Mapping[str, int]] = {}
        for number in range(SLOTS):
            words = self._all[number * self._width : (number + 1) * self._width]
            if words[_PID] and (number == self._slot or self._is_held(number)):
                found[words[_PID]] = {name: words[word] for name, word in self._words.items()}
        return found

    def _enter(self) -> None:
        self._entered = True
        if self._path is None:
            return
        try:
            self._open(self._path)
        except OSError as error:
            # A full or read-only disk: counting for itself is better than not to count.
            log.warning("this process counts for itself, without %s: %s", self._path, error)
            self._close()

    def _sums(self) -> tuple[dict[str, int], int]:
        totals = dict.fromkeys(self._names, 0)
        processes = 0
        for number in range(SLOTS if self._map is not None else 1):
            words = self._all[number * self._width : (number + 1) * self._width]
            own = self._map is None or number == self._slot
            if not own and not words[_PID]:
                continue  # Nobody has ever counted there.
            alive = own or self._is_held(number)
            processes += alive
            for name in self._names:
                if alive or name not in self._gauges:
                    totals[name] += words[self._words[name]]
        return totals, processes

    # The file.

    def _open(self, path: Path) -> None:
        deadline = time.monotonic() + _PATIENCE
        taken = False
        while not taken:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.open(path, flags, 0o600)
            with locked(self._file, deadline):
                # It may have been replaced while we waited for its lock.
                taken = is_at(path, self._file) and self._take_over(self._file, path)
                if taken:
                    self._claim(self._file)
                    sweep(path, _joined)
            if not taken:
                self._close()

    def _take_over(self, file: int, path: Path) -> bool:
        """Make the file ours to use; false if it was unlinked and another has to be made."""
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid():
            raise PermissionError(f"{path} belongs to somebody else")
        if found.st_size == 0:
            # Written, not truncated to its size: on a full disk a hole in it would be a SIGBUS.
            if os.pwrite(file, self._header.ljust(self._size, b"\0"), 0) < self._size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return True
        header = os.pread(file, HEADER, 0)
        if not header.startswith(MAGIC):
            raise FileExistsError(f"{path} is not a file of ssekit's counters")
        fits = header == self._header and found.st_size == self._size
        if not is_used(file) and not (fits and self._is_our_servers(file)):
            # Not truncated: a process that has just mapped it would get SIGBUS.
            path.unlink()
            return False
        if not fits:
            raise FileExistsError(f"{path} is in use by another version of ssekit")
        return True

    def _is_our_servers(self, file: int) -> bool:
        """Whether the parent of this process had started one that used the file."""
        words = memoryview(os.pread(file, self._size, 0))[HEADER:].cast("q")
        parents = {words[start + _PARENT] for start in range(0, len(words), self._width)}
        return os.getppid() in parents

    def _claim(self, file: int) -> None:
        self._map = mmap.mmap(file, self._size)
        self._all = memoryview(self._map)[HEADER:].cast("q")
        for number in range(SLOTS):
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self._place(number))
            except OSError:
                continue
            counted, self._slot = self._own, number
            self._own = self._all[number * self._width : (number + 1) * self._width]
            self._before = {name: self._own[word] for name, word in self._words.items()}
            self._before.update(dict.fromkeys(self._gauges, 0))
            for name, word in self._words.items():
                self._own[word] = self._before[name] + counted[word]
            self._own[_PARENT] = os.getppid()
            self._own[_PID] = os.getpid()
            return
        raise OSError(f"all {SLOTS} places are taken")

    def _place(self, number: int) -> int:
        """Where a slot begins in the file."""
        return HEADER + number * self._width * 8

    def _is_held(self, number: int) -> bool:
        try:
            # Shared: two readers that look at the same time do not take each other for its process.
            fcntl.lockf(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, self._place(number))
        except OSError:
            return True
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, self._place(number))
        return False

    def _close(self) -> None:
        """Leave the file; what this process counts from now on, it counts for itself."""
        self._own = self._all = memoryview(bytearray(self._width * 8)).cast("q")
        self._before = {}
        self._map = None  # closed with its last view
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _after_fork(self) -> None:
        """Leave the parent's slot alone: the child has none until it counts."""
        self._close()
        self._entered = False


def join(
    path: Path | None, counters: Sequence[str] = (), gauges: Sequence[str] = ()
) -> SharedCounters:
    """Return this process's numbers in ``path``: the same object each time for the same path.

    A caller that does not need them as long as the process lives calls `leave` once.
    """
    if path is None:
        return SharedCounters(None, counters, gauges)
    with _lock:
        name = os.path.abspath(path)
        if name not in _joined:
            _joined[name] = SharedCounters(Path(name), counters, gauges)
        _joined[name]._uses += 1
        return _joined[name]


def leave(counters: SharedCounters) -> None:
    """Undo one `join`: after the last, the file is closed, and has what this process counted."""
    with _lock:
        counters._uses -= 1
        if counters._path is not None and not counters._uses:
            _joined.pop(str(counters._path), None)
            counters._path = None  # What is still counted, it counts for itself.
            counters._close()


def read(
    path: Path, counters: Sequence[str] = (), gauges: Sequence[str] = ()
) -> tuple[Mapping[str, int], int] | None:
    """Return the sums in ``path`` and of how many processes they are, without being one of them.

    Returns None if there is no such file, or if it has other numbers.
    """
    with _lock:
        joined = _joined.get(os.path.abspath(path))
        return joined.totals() if joined is not None else _Reader(counters, gauges).read(path)


def details_of(
    path: Path, counters: Sequence[str] = (), gauges: Sequence[str] = ()
) -> tuple[Mapping[str, int], Mapping[int, Mapping[str, int]]] | None:
    """Return what `SharedCounters.details` does, without being one of the processes.

    Returns None where `read` does.
    """
    with _lock:
        joined = _joined.get(os.path.abspath(path))
        if joined is not None:
            return joined.details()
        return _Reader(counters, gauges).details_of(path)


class _Reader(SharedCounters):
    def __init__(self, counters: Sequence[str], gauges: Sequence[str]) -> None:
        super().__init__(None, counters, gauges)
        self._slot = -1

    def read(self, path: Path) -> tuple[Mapping[str, int], int] | None:
        with self._mapped(path) as fits:
            return self._sums() if fits else None

    def details_of(
        self, path: Path
    ) -> tuple[Mapping[str, int], Mapping[int, Mapping[str, int]]] | None:
        with self._mapped(path) as fits:
            return (self._sums()[0], self._of_each()) if fits else None

    @contextmanager
    def _mapped(self, path: Path) -> Iterator[bool]:
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            yield False
            return
        try:
            fits = os.pread(self._file, HEADER, 0) == self._header
            fits = fits and os.fstat(self._file).st_size == self._size
            if fits:
                self._map = mmap.mmap(self._file, self._size, prot=mmap.PROT_READ)
                self._all = memoryview(self._map)[HEADER:].cast("q")
            yield fits
        finally:
            self._close()


_instances: weakref.WeakSet[SharedCounters] = weakref.WeakSet()


def _forked() -> None:
    global _lock  # noqa: PLW0603
    _lock = RLock()  # Another thread of the parent may have held it.
    for counters in list(_instances):
        counters._after_fork()


os.register_at_fork(after_in_child=_forked)
