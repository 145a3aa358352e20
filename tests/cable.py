"""A network cable between a browser and a server, which a test can cut and mend."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


class Cable:
    """Passes on what comes to ``port``; while it is cut, nobody gets through."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._whole = True
        self._ends: set[socket.socket] = set()
        self._swallowed: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._entrance = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._entrance.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Drop every connection, and each new one, until `mend`."""
        with self._lock:
            self._whole = False
            for end in self._ends:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self._whole = True

    def swallow(self) -> None:
        """Pass on nothing more from the connections there are, and keep them open."""
        with self._lock:
            self._swallowed |= self._ends

    def close(self) -> None:
        self.cut()
        self._entrance.shutdown(socket.SHUT_RDWR)
        self._entrance.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._entrance.accept()
            except OSError:
                return
            if not self._whole:
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                near.close()
                continue
            with self._lock:
                self._ends |= {near, far}
            for ends in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if source not in self._swallowed:
                    sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        with self._lock:
            self._ends.discard(source)
            self._swallowed.discard(source)
        source.close()


@contextlib.contextmanager
def cable(target: int) -> Iterator[Cable]:
    """A cable to a port of this machine."""
    made = Cable(target)
    try:
        yield made
    finally:
        made.close()
