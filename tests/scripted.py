"""A server that answers each connection with the bytes it was told, and records what it was asked.

It stands for servers, proxies and cut connections that no real server shows on demand.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import TracebackType

Answer = bytes | Callable[["Request", socket.socket], None]

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


class Request:
    def __init__(self, head: bytes) -> None:
        line, *fields = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        self.method, self.target, _ = line.split(" ")
        pairs = (field.partition(":") for field in fields)
        self.headers = {name.strip().title(): value.strip() for name, _, value in pairs}

    @property
    def last_event_id(self) -> str | None:
        value = self.headers.get("Last-Event-Id")
        return None if value is None else value.encode("latin-1").decode()


def hold(head: bytes) -> Answer:
    """Send these bytes, then keep the connection open until the client leaves."""

    def answer(request: Request, connection: socket.socket) -> None:
        connection.sendall(head)
        while connection.recv(65536):
            pass

    return answer


class Scripted:
    """``with Scripted([STREAM + b"data: x\\n\\n"]) as server``; the last answer is repeated."""

    def __init__(self, answers: Iterable[Answer]) -> None:
        self._answers = list(answers)
        self.requests: list[Request] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._accept, daemon=True)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def __enter__(self) -> Scripted:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Cut all connections, as a proxy that restarts does."""
        with self._lock:
            for connection in self._open:
                with suppress(OSError):  # the client may have left
                    connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                break
            with self._lock:
                self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            head = b""
            while b"\r\n\r\n" not in head:
                data = connection.recv(65536)
                if not data:
                    return
                head += data
            request = Request(head)
            with self._lock:
                answer = self._answers[min(len(self.requests), len(self._answers) - 1)]
                self.requests.append(request)
            if isinstance(answer, bytes):
                connection.sendall(answer)
            else:
                answer(request, connection)
        except ConnectionError:
            pass  # the client left first
        finally:
            with self._lock:
                self._open.discard(connection)
                connection.close()
