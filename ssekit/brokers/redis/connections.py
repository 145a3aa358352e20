"""Connections to Redis: one that follows, and a few each for what writes and for what reads.

So reading, of which there is much after an outage or a deploy, is never in the way of a publish.
This module knows commands and answers, and no log.  redis-py has a client and pools of its own,
which retry: one command whose answer was lost was seen to be carried out twice.  So this takes
redis-py's single connections, which know the protocol, TLS and passwords, and keeps to one rule: an
error says whether the command may have been carried out, and nothing is sent a second time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any

from ssekit import host
from ssekit.brokers.pool import Pool
from ssekit.errors import BrokerUnavailable, HubClosed
from ssekit.host.wakeup import Wakeup

try:
    from redis.backoff import NoBackoff
    from redis.connection import Connection, parse_url
    from redis.exceptions import MovedError, NoScriptError, RedisError, ResponseError
    from redis.retry import Retry
except ImportError as error:
    raise ImportError(
        "redis: URLs need the redis package: pip install 'ssekit[redis]'", name="redis"
    ) from error

MOST = 4  # connections for what writes, and as many for what reads
_MOVES = 5  # servers of a cluster that are asked for the log
_TIMEOUT = 5.0  # seconds to connect, and for an answer

Command = tuple[object, ...]
"""The words of a command; the first may be a `Prepared`, which stands for several."""

RUN = object()
"""Stands in a command for what names the run of the server that the command is sent to."""

_forgotten: list[object] = []
"""Connections of a parent process, which a child must not speak on, nor say goodbye to."""


class Prepared:
    """The first words of a command that is sent often, in the form in which they are sent."""

    def __init__(self, *words: object) -> None:
        self._many = len(words)
        self._packed = _packed(words)

    def followed_by(self, words: Sequence[object]) -> bytes:
        """Return the bytes of the whole command."""
        return b"*%d\r\n%b%b" % (self._many + len(words), self._packed, _packed(words))


def _packed(words: Iterable[object]) -> bytes:
    """Return words in the protocol of Redis (RESP): each a "bulk string" with its length."""
    parts = []
    for word in words:
        text = word if isinstance(word, bytes) else str(word).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(text), text))
    return b"".join(parts)


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
        self._writers = self._pool("write", MOST)
        self._readers = self._pool("read", MOST)
        self._followers = self._pool("follow", None)  # a second one only if two follow at once

    def _pool(self, purpose: str, most: int | None) -> Pool[Line]:
        def open_one() -> Line:
            connection = self._class(**self._options, client_name=f"ssekit-{purpose}")
            return Line(connection, self._move)

        return Pool(
            f"to Redis that {purpose}",
            open_one,
            most=most,
            patience=self._timeout,
            threaded=False,
        )

    def ask(self, command: Command, instead: Command, *, writes: bool) -> Any:
        """Send one command and return its answer; ``instead`` if Redis knows no such script.

        Raises `BrokerUnavailable`, with ``maybe_stored`` if the command writes and its answer is
        missing.
        """
        if host.in_event_loop():
            raise BrokerUnavailable(
                "called in gevent's event loop, as by a signal handler, where nothing can wait for"
                " Redis, so nothing was done; let the handler start a greenlet that calls this"
            )
        for _ in range(_MOVES):
            pool = self._writers if writes else self._readers
            with suppress(_Moved), pool.lend() as line:
                try:
                    return line.ask(command, self._timeout, writes=writes)
                except NoScriptError:
                    return line.ask(instead, self._timeout, writes=writes)
        raise BrokerUnavailable("the servers of the Redis cluster name each other for the log")

    def follower(self) -> AbstractContextManager[Line]:
        """Lend the connection that follows."""
        return self._followers.lend()

    def _move(self, host: str, port: int) -> None:
        """Go to another server of a cluster from now on: the log is there."""
        self._options |= {"host": host or self._options["host"], "port": port}
        for pool in self._pools():
            pool.empty()

    def close(self) -> None:
        for pool in self._pools():
            pool.close()

    def abandon(self) -> None:
        """Forget everything after a fork."""
        for pool in self._pools():
            pool.abandon()
        self._begin()

    def _pools(self) -> tuple[Pool[Line], ...]:
        return self._writers, self._readers, self._followers


class _Moved(BrokerUnavailable):
    """Raised if the log is on another server, to which the next connection goes."""


class Line:
    """One connection, unusable after the first failure: its next answer might be an old one's."""

    def __init__(self, connection: Any, moved: Callable[[str, int], None]) -> None:
        self._connection = connection
        self._moved = moved
        self._process = os.getpid()
        self._run: str | None = None
        self.usable = True
        try:
            connection.connect()
        except (RedisError, OSError) as error:
            raise BrokerUnavailable(f"Redis cannot be reached: {error}") from error

    def ask(
        self,
        command: Command,
        timeout: float,
        wakeup: Wakeup | None = None,
        *,
        writes: bool = False,
    ) -> Any:
        """Send a command and return its answer; `HubClosed` if it is woken before that."""
        self.usable = False
        self._check_process()
        try:
            first, *words = command
            if isinstance(first, Prepared):
                words = [self._run_of_server() if word is RUN else word for word in words]
                self._connection.send_packed_command([first.followed_by(words)])
            else:
                self._connection.send_command(*command)
        except (RedisError, OSError) as error:
            # What did not leave whole is not carried out.
            raise BrokerUnavailable(f"Redis cannot be reached: {error}") from error
        if wakeup is not None:
            self._wait(timeout, wakeup)
        self._check_process(maybe_stored=writes)
        try:
            answer = self._connection.read_response()
        except NoScriptError:
            self.usable = True
            raise
        except MovedError as error:  # Nothing was carried out.
            self._moved(error.host, error.port)
            raise _Moved(f"the log is on another server of the cluster: {error}") from error
        except ResponseError as error:
            self.usable = True  # an answer, too
            raise BrokerUnavailable(f"Redis refused: {error}") from error
        except (RedisError, OSError) as error:
            text = f"Redis did not answer: {error}"
            raise BrokerUnavailable(text, maybe_stored=writes) from error
        self.usable = True
        return answer

    def _check_process(self, *, maybe_stored: bool = False) -> None:
        """Refuse to go on in a fork's child: the answer is the parent's."""
        if os.getpid() != self._process:
            text = "this process was forked in the middle of a call, which its parent carries on"
            raise BrokerUnavailable(text, maybe_stored=maybe_stored)

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

    def abandon(self) -> None:
        """Keep it, as dropping it would say goodbye in the parent's name."""
        _forgotten.append(self)
