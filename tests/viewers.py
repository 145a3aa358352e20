"""Many open streams, counted by the process that serves them (`tests.apps.balanced` names it)."""

from __future__ import annotations

import re
import selectors
import socket
import time
from collections import Counter
from contextlib import suppress

_PROCESS = re.compile(rb"\r\nX-Process: ([0-9]+)\r\n")


class Viewers:
    """Opens streams at one address and keeps them open; ``with Viewers(port, path) as viewers``."""

    def __init__(self, port: int, path: str) -> None:
        self.port = port
        self.resets = 0
        """Connections that ended without an answer."""
        self._request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        self._open: dict[socket.socket, int] = {}

    def __enter__(self) -> Viewers:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._open:
            connection.close()

    def open(self, count: int, every: float = 0.0) -> None:
        """Open so many further streams, ``every`` seconds apart or all at once."""
        connections = []
        for _ in range(count):
            connections.append(self.connect())
            time.sleep(every)
        self.await_heads(connections)

    def connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        connection.sendall(self._request)
        return connection

    def await_heads(self, connections: list[socket.socket]) -> None:
        """Wait for the answer of each, and count it for the process that it names."""
        for connection in connections:
            head = b""
            with suppress(OSError):
                while b"\r\n\r\n" not in head:
                    piece = connection.recv(65_536)
                    if not piece:
                        break
                    head += piece
            found = _PROCESS.search(head)
            if found is None:
                self.resets += 1
                connection.close()
            else:
                self._open[connection] = int(found[1])

    def forget_ended(self) -> int:
        """Close the streams that the server has ended, and return how many they are."""
        ended = []
        with selectors.DefaultSelector() as selector:
            for connection in self._open:
                selector.register(connection, selectors.EVENT_READ)
            readable = [key.fileobj for key, _ in selector.select(0)]
        for connection in self._open:
            if connection in readable and _has_ended(connection):
                ended.append(connection)
        for connection in ended:
            del self._open[connection]
            connection.close()
        return len(ended)

    @property
    def counts(self) -> Counter[int]:
        """The open streams of each process."""
        return Counter(self._open.values())

    def fullest(self, workers: int) -> float:
        """The fullest process's streams, times the mean of so many workers."""
        return max(self.counts.values()) * workers / len(self._open)


def _has_ended(connection: socket.socket) -> bool:
    try:
        while connection.recv(65_536, socket.MSG_DONTWAIT):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        pass
    return True
