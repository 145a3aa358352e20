"""A taken-over connection that is written to from the event loop, where nothing may wait.

What the kernel does not take at once is kept, and sent when it can take more; until then the
connection is `busy`, and its owner writes nothing further.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

from gevent import get_hub

from ssekit.host.chunks import LAST_CHUNK, chunk
from ssekit.host.connection import Connection
from ssekit.host.tcp import bound_unsent, patience, wait_for_answers

UNSENT = 16 * 1024
"""Bytes that the kernel holds beyond what is on its way (TCP_NOTSENT_LOWAT)."""


class Outlet:
    """The rest of an answer's body.  Raises OSError if the process has no descriptor left.

    A host that acknowledges nothing for longer than a heartbeat, and at least ten seconds, is
    dropped by the kernel; one that only does not read is not.
    """

    __slots__ = ("_patience", "_rest", "_watcher", "chunked", "descriptor")

    def __init__(self, connection: Connection, heartbeat: float) -> None:
        self.descriptor = os.dup(connection.socket.fileno())
        self.chunked = connection.chunked
        self._patience = patience(heartbeat)
        self._rest: memoryview | None = None
        self._watcher: Any = None
        bound_unsent(connection.socket, UNSENT)
        wait_for_answers(self.descriptor, self._patience)

    @property
    def busy(self) -> bool:
        """Whether bytes wait that the kernel has not taken."""
        return self._rest is not None

    def write(self, block: bytes, head: bytes = b"") -> None:
        """Send a block, now or when the client reads on; not while `busy`.

        ``head`` is sent before it as it is.  Raises OSError if the client has disconnected.
        """
        data = head + chunk(block) if self.chunked else head + block
        try:
            sent = os.write(self.descriptor, data)
        except BlockingIOError:
            sent = 0
        if sent != len(data):
            self._keep(memoryview(data)[sent:])

    def _keep(self, rest: memoryview) -> None:
        self._rest = rest
        wait_for_answers(self.descriptor, 0)
        self._watcher = get_hub().loop.io(self.descriptor, 2)
        self._watcher.start(self._continue)

    def _continue(self) -> None:
        if self._rest is None:
            return
        try:
            self._rest = self._rest[os.write(self.descriptor, self._rest) :] or None
        except BlockingIOError:
            return
        except OSError:
            self._stop_watching()  # The disconnect is seen as such; nothing more can be sent.
            return
        if self._rest is None:
            self._stop_watching()
            wait_for_answers(self.descriptor, self._patience)

    def _stop_watching(self) -> None:
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None

    def end(self, last: bytes = b"", cut: bool = False) -> None:
        """Send a last block and the end of the body, if the client reads, and close.

        Where bytes wait, or the stream is to be ``cut``, the body has no orderly end.
        """
        if not self.busy:
            data = (chunk(last, self.chunked) if last else b"") + (
                LAST_CHUNK if self.chunked and not cut else b""
            )
            with contextlib.suppress(OSError):  # It has gone, or does not read.
                os.write(self.descriptor, data)
        self._stop_watching()
        os.close(self.descriptor)
