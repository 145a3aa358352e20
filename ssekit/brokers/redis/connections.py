"""Connections to Redis: one that reads the tail, and a few that all other commands share.

`ssekit.brokers.redis` uses this; it knows commands and answers, and no log.  redis-py has a client
and pools of its own, which retry: one command whose answer was lost was seen to be carried out
twice.  So this takes redis-py's single connections, which know the protocol, TLS and passwords,
and keeps to one rule: an error says whether the command may have been carried out, and nothing is
sent a second time.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

from ssekit.errors import BrokerUnavailable, HubClosed
from ssekit.host.wakeup import NativeLock, Wakeup

try:
    from redis.backoff import NoBackoff
    from redis.connection import Connection, parse_url
    from redis.exceptions import RedisError, ResponseError
    from redis.retry import Retry
except ImportError as error:
    raise ImportError(
        "redis: URLs need the redis package: pip install 'ssekit[redis]'", name="redis"
    ) from error

_MOST = 8  # connections for commands
_TIMEOUT = 5.0  # seconds to connect, and for an answer

RUN = object()
"""Stands in a command for what names the run of the server that the command is sent to."""

_forgotten: list[object] = []
"""Connections of a parent process, which a child must not speak on, nor say goodbye to."""


class Connections:
    """All connections of one process to one Redis."""

    def __init__(self, url: str) -> None:
        options: dict[str, Any] = {
            "socket_timeout": _TIMEOUT,
            "socket_connect_timeout": _TIMEOUT,
            **parse_url(url),  # type: ignore[no-untyped-call]
            "retry": Retry(NoBackoff(), 0),
            "retry_on_error": [],
            "protocol": 2,
        }
        self._class = options.pop("connection_class", Connection)
        if "path" not in options:
            options.setdefault("socket_keepalive", True)
        self._options = options
        try:
            self._class(**options)  # opens nothing
        except TypeError as error:
            raise ValueError(f"an option of the URL means nothing here: {error}") from error
        self._timeout = float(options["socket_timeout"] or _TIMEOUT)
        self._begin()

    def _begin(self) -> None:
        self._closed = False
        self._lock = NativeLock()
        self._places: threading.BoundedSemaphore | None = None
        self._idle: list[_Line] = []
        self._readers: list[_Line] = []

    def ask(self, command: tuple[object, ...], *, writes: bool) -> Any:
        """Send one command and return its answer.

        Raises `BrokerUnavailable`, with ``maybe_stored`` if the command writes and its answer is
        missing.
        """
        if _in_a_foreign_thread():
            with closing(self._line("ssekit")) as line:
                return line.ask(command, self._timeout, writes=writes)
        with self._lock:
            # Made at the first use: a server may patch this process after it has imported us.
            places = self._places = self._places or threading.BoundedSemaphore(_MOST)
        if not places.acquire(timeout=self._timeout):
            raise BrokerUnavailable(f"all {_MOST} connections to Redis are busy")
        try:
            with self._kept(self._idle, "ssekit") as line:
                return line.ask(command, self._timeout, writes=writes)
        finally:
            places.release()

    @contextmanager
    def reader(self) -> Iterator[_Line]:
        """The connection for the tail; there is a second one only if two follow at once."""
        if _in_a_foreign_thread():
            with closing(self._line("ssekit-tail")) as line:
                yield line
        else:
            with self._kept(self._readers, "ssekit-tail") as line:
                yield line

    @contextmanager
    def _kept(self, idle: list[_Line], name: str) -> Iterator[_Line]:
        with self._lock:
            line = idle.pop() if idle else None
        if line is not None and line.has_ended():
            line.close()
            line = None
        if line is None:
            line = self._line(name)
        try:
            yield line
        finally:
            with self._lock:
                keep = line.usable and not self._closed
                if keep:
                    idle.append(line)
            if not keep:
                line.close()

    def _line(self, name: str) -> _Line:
        return _Line(self._class(**self._options, client_name=name))

    def close(self) -> None:
        with self._lock:
            self._closed = True
            lines = [*self._idle, *self._readers]
            self._idle.clear()
            self._readers.clear()
        for line in lines:
            line.close()

    def abandon(self) -> None:
        """Forget everything after a fork."""
        _forgotten.extend((*self._idle, *self._readers))
        self._begin()


class _Line:
    """One connection, unusable after the first failure: its next answer might be an old one's."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._run: str | None = None
        self.usable = True
        try:
            connection.connect()
        except (RedisError, OSError) as error:
            raise BrokerUnavailable(f"Redis cannot be reached: {error}") from error

    def ask(
        self,
        command: tuple[object, ...],
        timeout: float,
        wakeup: Wakeup | None = None,
        *,
        writes: bool = False,
    ) -> Any:
        """Send a command and return its answer.

        Raises `HubClosed` if ``wakeup`` is notified before it comes.
        """
        self.usable = False
        try:
            if RUN in command:
                command = tuple(self._run_of_server() if word is RUN else word for word in command)
            self._connection.send_command(*command)
        except (RedisError, OSError) as error:
            # What did not leave whole is not carried out.
            raise BrokerUnavailable(f"Redis cannot be reached: {error}") from error
        if wakeup is not None:
            self._wait(timeout, wakeup)
        try:
            answer = self._connection.read_response()
        except ResponseError as error:
            self.usable = True  # an answer, too
            raise BrokerUnavailable(f"Redis refused: {error}") from error
        except (RedisError, OSError) as error:
            text = f"Redis did not answer: {error}"
            raise BrokerUnavailable(text, maybe_stored=writes) from error
        self.usable = True
        return answer

    def _run_of_server(self) -> str:
        """Return the server's run_id, which is new whenever it starts."""
        if self._run is None:
            self._connection.send_command("INFO", "server")
            try:
                found = re.search(rb"run_id:(\w+)", self._connection.read_response())
            except ResponseError:
                found = None  # not allowed to this user: then a restart goes unnoticed
            self._run = found[1].decode() if found else ""
        return self._run

    def _wait(self, timeout: float, wakeup: Wakeup) -> None:
        # Between commands the parser holds nothing, so an answer shows at the socket; redis-py
        # tells nobody which it is.
        answer: int = self._connection._sock.fileno()
        ready = wakeup.wait(timeout + _TIMEOUT, answer)
        if not ready:
            raise BrokerUnavailable("Redis did not answer in time")
        if answer not in ready:
            raise HubClosed("the hub is closed")

    def has_ended(self) -> bool:
        try:
            return bool(self._connection.can_read(timeout=0))
        except (RedisError, OSError):
            return True

    def close(self) -> None:
        with suppress(RedisError, OSError):  # it is gone already
            self._connection.disconnect()


def _in_a_foreign_thread() -> bool:
    """Whether sockets are gevent's, each bound to a thread's loop, and this is a passing thread.

    Only the main thread's loop is sure to live on, so elsewhere connections are not kept.
    """
    if socket.socket.__module__ == "socket":
        return False
    main = os.getpid() if sys.platform == "linux" else threading.main_thread().native_id
    return threading.get_native_id() != main
