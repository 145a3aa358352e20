"""A connection that was taken over from the server: we write the rest of the body ourselves.

The descriptor is a duplicate of the server's, which closes its own.  A write that the kernel does
not take at once waits in the greenlet that writes.
"""

from __future__ import annotations

import contextlib
import os
from _socket import socket as NativeSocket  # noqa: N812 - it needs nothing of gevent's
from collections.abc import Iterable
from typing import Any

from gevent import get_hub

from ssekit.host.chunks import LAST_CHUNK
from ssekit.host.connection import Connection
from ssekit.host.wsgi_servers import worker_is_ending


class TakenConnection(Connection):
    """The rest of an answer, of which the server has sent the headers at most.

    Raises OSError, with nothing changed, if the process has no descriptor left.
    """

    transparent = True

    def __init__(self, connection: Connection) -> None:
        theirs = connection.socket
        descriptor = os.dup(theirs.fileno())
        try:
            self._socket = NativeSocket(theirs.family, theirs.type, theirs.proto, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._chunked = connection.chunked
        self._cut = False
        self._head = connection.abandon()

    @property
    def socket(self) -> Any:
        return self._socket

    @property
    def chunked(self) -> bool:
        return self._chunked

    @property
    def headers(self) -> Iterable[tuple[str, str]]:
        return ()

    def direct(self, given: int) -> bool:
        return True

    def ending(self) -> bool:
        return worker_is_ending()

    def cut(self) -> None:
        self._cut = True

    def write(self, block: bytes) -> None:
        """Write a block; raises OSError if the client has disconnected."""
        data = b"%X\r\n%b\r\n" % (len(block), block) if self._chunked else block
        if self._head:
            data, self._head = self._head + data, b""
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self._write_rest(memoryview(data)[sent:])

    def _write_rest(self, rest: memoryview) -> None:
        hub = get_hub()
        watcher = hub.loop.io(self._socket.fileno(), 2)
        try:
            while rest:
                hub.wait(watcher)
                with contextlib.suppress(BlockingIOError):
                    rest = rest[self._socket.send(rest) :]
        finally:
            watcher.close()

    def end(self) -> None:
        """End the body, unless it was `cut`, and close the connection."""
        last = self._head + (LAST_CHUNK if self._chunked and not self._cut else b"")
        with contextlib.suppress(OSError):  # The client has gone, or does not read.
            self._socket.send(last)
        self._socket.close()
