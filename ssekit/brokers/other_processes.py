"""The processes of one machine that follow the same log, and how they wake each other.

It knows no log, only the path of a file: that of the log, or one that stands for it.  Beside it is
a folder with one datagram socket for each waiter; to wake them is to send each one byte.  The
kernel wakes them within microseconds, and nobody has to be running in between.  A socket whose
process has died refuses, and the first sender to find out removes it.

This is only the fast path: where there can be no such folder, or a sender may not write to a socket
in it, followers still look at the log now and then.  A datagram carries nothing, and a
false one costs a look at the log.  Still the folder is used only if it was made by somebody who
may write to the file, and if others may write to it no more than to the file.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import stat
from _socket import AF_UNIX, SOCK_DGRAM
from _socket import socket as NativeSocket  # noqa: N812 - a patched one belongs to one thread
from contextlib import suppress
from posix import close  # gevent's os.close() waits for the event loop's next turn

from ssekit.host.wakeup import NativeLock, Wakeup

_LONGEST_PATH = 100  # sun_path has 108 bytes on Linux and 104 elsewhere
_log = logging.getLogger("ssekit.brokers")


class OtherProcesses:
    def __init__(self, file: str) -> None:
        self._file = file
        self._path = file + "-wake"
        self._lock = NativeLock()
        self._warned = False
        self._closed = False
        self._notifying = self._again = False
        self._begin()

    def _begin(self) -> None:
        self._folder = -1
        self._identity = (0, 0)
        self._sender: NativeSocket | None = None
        self._own: set[str] = set()

    def wakeup(self) -> Wakeup:
        """A wake-up that every process can notify; if that cannot be, one for this process."""
        try:
            return SocketWakeup(self)
        except FileNotFoundError:
            pass  # the file was just deleted: the next look makes it again
        except OSError as error:
            if not self._closed:  # in the middle of it, and then nobody waits any more
                self._warn(f"{error}: events of other processes arrive with a delay")
        return LocalWakeup()

    def notify(self) -> None:
        """Wake the waiters of all other processes."""
        if self._folder < 0 and not os.access(self._path, os.F_OK):
            return  # nobody follows
        try:
            with self._lock:
                self._again = True
                if self._notifying:
                    return  # a signal handler, which has interrupted the loop below
                self._notifying = True
                try:
                    while self._again:
                        self._again = False
                        self._notify()
                finally:
                    self._notifying = False
        except FileNotFoundError:
            pass  # the file was just deleted: its followers will find out
        except OSError as error:
            self._warn(f"{error}: followers notice new events with a delay")

    def _notify(self) -> None:
        if self._closed or not self._open():
            return  # nobody follows
        if self._sender is None:
            self._sender = NativeSocket(AF_UNIX, SOCK_DGRAM)
            self._sender.setblocking(False)
        for name in os.listdir(self._folder):
            if name not in self._own:
                self._notify_one(self._sender, name)

    def _notify_one(self, sender: NativeSocket, name: str) -> None:
        try:
            sender.sendto(b"\0", self._address(name))
        except BlockingIOError:
            pass  # its queue is full: it was notified, and has not looked yet
        except ConnectionRefusedError:
            with suppress(OSError):  # not ours to remove, or another process was quicker
                found = os.stat(name, dir_fd=self._folder, follow_symlinks=False)
                if stat.S_ISSOCK(found.st_mode):
                    os.unlink(name, dir_fd=self._folder)
        except OSError:
            pass  # it has just gone, or belongs to another user: that one looks now and then

    def bind(self, socket: NativeSocket) -> tuple[str, tuple[int, int]]:
        """Bind the socket in the folder; returns its name and which folder it was."""
        with self._lock:
            self._make()
            if self._closed or not self._open():
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._path)
            name = secrets.token_hex(8)
            socket.bind(self._address(name))
            with suppress(OSError):  # then only this user can wake it, and others' news comes late
                mode = stat.S_IMODE(os.stat(self._file).st_mode) & 0o666
                os.chmod(name, mode, dir_fd=self._folder)
            self._own.add(name)
            return name, self._identity

    def is_there(self, name: str, identity: tuple[int, int]) -> bool:
        """Whether a bound name can still be found by the others."""
        with self._lock:
            try:
                if self._closed or not self._open() or identity != self._identity:
                    return False
                os.stat(name, dir_fd=self._folder, follow_symlinks=False)
            except OSError:
                return False
            return True

    def unbind(self, name: str, identity: tuple[int, int]) -> None:
        with self._lock:
            self._own.discard(name)
            with suppress(OSError):  # gone already, which is what is wanted
                if self._open() and identity == self._identity:
                    os.unlink(name, dir_fd=self._folder)
            if self._closed:
                self._release()

    def close(self) -> None:
        """Release the folder; the last wake-up does so again."""
        with self._lock:
            self._closed = True
            self._release()

    def abandon(self) -> None:
        """Close this process's copies after a fork."""
        self._lock = NativeLock()
        self._notifying = self._again = False
        self._release()

    def _release(self) -> None:
        self._close_folder()
        if self._sender is not None:
            self._sender.close()
        self._begin()

    def _close_folder(self) -> None:
        folder, self._folder = self._folder, -1
        if folder >= 0:
            close(folder)

    def _make(self) -> None:
        """Make the folder, for those who may write to the file."""
        file = os.stat(self._file)
        mode = 0o700 | sum(bits for bits in (0o070, 0o007) if file.st_mode & bits & 0o022)
        try:
            os.mkdir(self._path, 0o700)
        except FileExistsError:
            return
        if mode != 0o700:
            with suppress(OSError):  # a group that is not ours: then its members' news comes late
                os.chown(self._path, -1, file.st_gid)
                os.chmod(self._path, mode)

    def _open(self) -> bool:
        """Have the folder open, if there is one; raises `OSError` if it must not be used."""
        try:
            now = os.stat(self._path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if self._folder >= 0 and self._identity == (now.st_dev, now.st_ino):
            return True
        self._close_folder()
        folder = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        made, file = os.fstat(folder), os.stat(self._file)
        writers = {os.geteuid(), file.st_uid, 0}
        shared = file.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if (made.st_uid not in writers and not shared) or (
            made.st_mode & ~file.st_mode & stat.S_IWOTH
        ):
            close(folder)
            raise PermissionError(errno.EPERM, "somebody else's folder", self._path)
        self._folder, self._identity = folder, (made.st_dev, made.st_ino)
        return True

    def _address(self, name: str) -> str:
        path = os.path.join(self._path, name)
        if len(os.fsencode(path)) <= _LONGEST_PATH:
            return path
        # However long the path is, the open folder has a short name too, on Linux.
        return f"/proc/self/fd/{self._folder}/{name}"

    def _warn(self, text: str) -> None:
        if not self._warned:
            self._warned = True
            _log.warning("no quick wake-up beside %s: %s", self._file, text)


class SocketWakeup(Wakeup):
    """A socket in the folder, which every process can notify."""

    def __init__(self, others: OtherProcesses) -> None:
        self._others = others
        self._socket = NativeSocket(AF_UNIX, SOCK_DGRAM)
        self._sender = NativeSocket(AF_UNIX, SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._sender.setblocking(False)
            self._name, self._folder = others.bind(self._socket)
            self._sender.connect(self._socket.getsockname())
        except BaseException:
            self.abandon()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def notify(self) -> None:
        with suppress(BlockingIOError):  # The queue is full of notifications nobody has seen yet.
            self._sender.send(b"\0")

    def clear(self) -> None:
        try:
            while True:
                self._socket.recv(1)
        except BlockingIOError:
            pass  # nothing more

    def usable(self) -> bool:
        return self._others.is_there(self._name, self._folder)

    def close(self) -> None:
        self._others.unbind(self._name, self._folder)
        self.abandon()

    def abandon(self) -> None:
        self._socket.close()
        self._sender.close()


class LocalWakeup(Wakeup):
    """What there is instead, for this process alone; the next wait tries again."""

    def usable(self) -> bool:
        return False
