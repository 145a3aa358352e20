"""What the WSGI server that is running us looks like from below.

PEP 3333 gives an application no way to write while its iterable is blocked, to see that the client
has left, or to learn that the process is ending.  Every server has the objects for it, two or three
frames up the stack, in the function that calls the application and iterates its answer.  This
module finds that function and knows, server by server, where it keeps what we need; nothing else in
ssekit knows a server's internals.  Nothing is patched and no server is imported.  A server that is
not in the table below, or that has changed, is served by the plain rules of PEP 3333.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from types import FrameType
from typing import Any

from ssekit.host.connection import Connection, plain
from ssekit.host.logs import Logger

_log = Logger("ssekit.host")
_SHUT_RD = 0  # socket's, without which a CGI process starts faster

# Modules whose wrappers pass every block on as it is, so that our bytes are the client's bytes.
_TRANSPARENT = {"werkzeug.wsgi", "werkzeug.wrappers.response", "ssekit.django.response"}


class _Server(Connection):
    """Is made from the local variables of the server's function, and raises where they differ."""

    def __init__(self, local: Mapping[str, Any]) -> None:
        raise NotImplementedError


class Gunicorn(_Server):
    """gunicorn's sync worker, and what its workers have in common: a Response, and the worker."""

    def __init__(self, local: Mapping[str, Any]) -> None:
        self.server = local["resp"]
        self.answer = local.get("respiter")
        self.worker = local["self"]

    def check(self) -> None:
        super().check()
        if not callable(self.server.force_close):
            raise TypeError("force_close is not callable")

    @property
    def socket(self) -> Any:
        return self.server.sock

    @property
    def chunked(self) -> bool:
        return bool(self.server.chunked)

    @property
    def sent(self) -> int:
        return int(self.server.sent)

    @property
    def headers(self) -> Iterable[tuple[str, str]]:
        return self.server.headers  # type: ignore[no-any-return]

    def cut(self) -> None:
        # Response.close() sends a last chunk only where it believes in chunks.
        self.server.chunked = False
        self.server.force_close()

    def ending(self) -> bool:
        return not self.worker.alive

    def close_after(self) -> None:
        self.server.force_close()

    def expect_nothing(self) -> None:
        # gthread closes a connection by waiting up to two seconds for its peer to close first.
        if plain(self.socket):
            with contextlib.suppress(OSError):
                self.socket.shutdown(_SHUT_RD)


class GunicornThreads(Gunicorn):
    """gunicorn's gthread worker."""

    @property
    def capacity(self) -> int | None:
        return int(self.worker.cfg.threads)


class GunicornGreenlets(Gunicorn):
    """gunicorn's gevent worker."""

    can_abandon = True

    @property
    def capacity(self) -> int | None:
        return int(self.worker.worker_connections)

    def check(self) -> None:
        super().check()
        _ = self.server.headers_sent

    def abandon(self) -> bytes:
        head = b"" if self.server.headers_sent else self._take_head()
        # A connection that must close is not read from any more.
        self.cut()
        return head

    def _take_head(self) -> bytes:
        """Return the headers as the server sends them, and have it believe that it has.

        Those that come all at once get the same ones, in the same second of their Date.
        """
        parts = self._parts_of_head()
        if parts is None:
            return self._written_head()
        head = _heads.get(parts)
        if head is None:
            if len(_heads) >= _MOST_HEADS:
                _heads.clear()
            head = _heads[parts] = self._written_head()
        self.server.headers_sent = True
        return head

    def _parts_of_head(self) -> tuple[Any, ...] | None:
        """Return all that the server makes the headers of; None if it may be something else."""
        server, kind = self.server, type(self.server)
        try:
            makers = kind.default_headers.__module__, kind.send_headers.__module__
            if makers != _MAKERS:
                return None
            closes = server.should_close()
            general = server.version, server.req.version, closes, server.upgrade, server.chunked
            return (int(time.time()), server.status, *general, *server.headers)
        except AttributeError:
            return None

    def _written_head(self) -> bytes:
        # It writes the headers before the first block, and with an empty one nothing else.
        server = self.server
        connected, server.sock = server.sock, _Collected()
        try:
            server.write(b"")
            return b"".join(server.sock.blocks)
        finally:
            server.sock = connected


_MAKERS = ("gunicorn.http.wsgi", "gunicorn.http.wsgi")
"""Where the methods are that make the headers, unless an application has replaced them."""
_MOST_HEADS = 100
_heads: dict[tuple[Any, ...], bytes] = {}
"""The headers that gunicorn has made, by all that it makes them of."""


class _Collected:
    """Stands for a socket, and keeps what is sent through it."""

    def __init__(self) -> None:
        self.blocks: list[bytes] = []

    def sendall(self, block: bytes) -> None:
        self.blocks.append(block)


class Waitress(_Server):
    """waitress: a WSGITask on a channel."""

    def __init__(self, local: Mapping[str, Any]) -> None:
        self.server = local["self"]
        self.answer = local.get("app_iter")

    def check(self) -> None:
        super().check()
        _ = self.server.wrote_header, self.server.chunked_response, self.server.close_on_finish

    @property
    def socket(self) -> Any:
        return self.server.channel.socket

    @property
    def capacity(self) -> int | None:
        return int(self.server.channel.adj.threads)

    @property
    def sent(self) -> int:
        return -1  # It counts no bytes of a body in chunks.

    def direct(self, given: int) -> bool:
        # That nothing stands between has to be enough.
        return self.transparent and bool(self.server.wrote_header) and not self.encoded

    @property
    def headers(self) -> Iterable[tuple[str, str]]:
        return self.server.response_headers  # type: ignore[no-any-return]

    def close_after(self) -> None:
        self.server.close_on_finish = True

    def cut(self) -> None:
        self.server.chunked_response = False
        self.close_after()

    def write(self, block: bytes) -> None:
        try:
            self.server.write(block)
        except Exception as error:
            # Its own error for a client that has gone; not an OSError, and not importable here.
            if type(error).__name__ == "ClientDisconnected":
                raise BrokenPipeError("the client has left") from error
            raise


class Wsgiref(_Server):
    """wsgiref's handlers, from which Django's runserver derives its own."""

    def __init__(self, local: Mapping[str, Any]) -> None:
        self.server = local["self"]
        self.answer = self.server.result

    @property
    def socket(self) -> Any:
        return getattr(getattr(self.server, "request_handler", None), "connection", None)

    @property
    def sent(self) -> int:
        return int(self.server.bytes_sent)

    @property
    def headers(self) -> Iterable[tuple[str, str]]:
        return self.server.headers.items()  # type: ignore[no-any-return]


class Pywsgi(_Server):
    """gevent's own server, also under gunicorn's gevent_pywsgi worker."""

    def __init__(self, local: Mapping[str, Any]) -> None:
        self.server = local["self"]
        self.answer = self.server.result

    @property
    def socket(self) -> Any:
        return self.server.socket

    @property
    def chunked(self) -> bool:
        return bool(self.server.response_use_chunked)

    @property
    def sent(self) -> int:
        return int(self.server.response_length)

    @property
    def headers(self) -> Iterable[tuple[str, str]]:
        return [(_text(name), _text(value)) for name, value in self.server.response_headers]

    def close_after(self) -> None:
        self.server.close_connection = True

    def cut(self) -> None:
        self.server.response_use_chunked = False
        self.close_after()


class Uwsgi(_Server):
    """uWSGI: nothing but the descriptor, from the module that it puts into the interpreter.

    So it is seen who has left; heartbeats go out where a source yields, as blocks.
    """

    def __init__(self, local: Mapping[str, Any]) -> None:
        self._socket = _Descriptor(local["connection_fd"]())

    @property
    def socket(self) -> Any:
        return self._socket

    def check(self) -> None:
        if self._socket.fileno() < 0:
            raise ValueError("there is no descriptor")

    def direct(self, given: int) -> bool:
        return False


class _Descriptor:
    def __init__(self, number: int) -> None:
        self._number = number

    def fileno(self) -> int:
        return self._number


def _text(header: str | bytes) -> str:
    return header if isinstance(header, str) else header.decode("latin-1")


# The function of each server that calls the application or iterates its answer.
_LOOPS: dict[tuple[str, str], type[_Server]] = {
    ("gunicorn.workers.base_async", "handle_request"): GunicornGreenlets,
    ("gunicorn.workers.gthread", "handle_request"): GunicornThreads,
    ("gunicorn.workers.sync", "handle_request"): Gunicorn,
    ("waitress.task", "execute"): Waitress,
    ("wsgiref.handlers", "run"): Wsgiref,
    ("wsgiref.handlers", "finish_response"): Wsgiref,
    ("gevent.pywsgi", "run_application"): Pywsgi,
    ("gevent.pywsgi", "process_result"): Pywsgi,
}

_GREENLETS_WAIT = ("gunicorn.workers.ggevent", "run")
"""Where the main greenlet of the gevent worker looks once a second whether it has to end."""


def find(body: object = None, write: object = None) -> Connection | None:
    """Return the connection of the server whose loop has called us, if we know that server.

    ``body`` is the iterable that a stream gave to the server, ``write`` the callable that it got
    from ``start_response``, whichever it sends with; with neither, the answer has not begun.
    """
    frame: FrameType | None = sys._getframe(1)
    transparent = True
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        if module.startswith("ssekit."):
            frame = frame.f_back
            continue
        kind = _LOOPS.get((module, frame.f_code.co_name))
        if kind is not None:
            connection = _made(kind, frame.f_locals, begun=body is not None or write is not None)
            if connection is not None and write is not None:
                connection.transparent = getattr(write, "__self__", None) is connection.server
            elif connection is not None:
                connection.transparent = transparent and (
                    connection.answer is body or type(connection.answer).__module__ in _TRANSPARENT
                )
            return connection
        transparent = transparent and module in _TRANSPARENT
        frame = frame.f_back
    # uWSGI calls from C, so that there is no frame of its own to find.
    uwsgi = sys.modules.get("uwsgi")
    return None if uwsgi is None else _made(Uwsgi, vars(uwsgi), begun=True)


def begun(connection: Connection | None, write: object) -> Connection | None:
    """Return a connection that `find` returned before the answer began, for what follows.

    ``write`` is what ``start_response`` has returned.  For a caller in another greenlet, whose
    frames do not lead to the server.
    """
    if connection is None:
        return None
    try:
        connection.check()
    except Exception as error:
        _log_changed(type(connection), error)
        return None
    theirs = getattr(connection, "server", None)
    connection.transparent = theirs is not None and getattr(write, "__self__", None) is theirs
    return connection


def _made(kind: type[_Server], local: Mapping[str, Any], begun: bool) -> Connection | None:
    """Return a server's connection if everything is where we look for it, and None otherwise."""
    try:
        connection = kind(local)
        if begun and kind not in _as_known:
            connection.check()
            _as_known.add(kind)
        return connection
    except Exception as error:
        _log_changed(kind, error)
        return None


def _log_changed(kind: type[Connection], error: Exception) -> None:
    if kind not in _changed:
        _changed.add(kind)
        _log.warning(
            "%s is not as ssekit knows it (%r): streams are sent as PEP 3333 says and no more, so "
            "that each keeps its thread or greenlet; upgrade ssekit, or use a version of the "
            "server that its documentation names",
            kind.__name__.lower(),
            error,
        )


_changed: set[type[Connection]] = set()
"""The servers for which this was logged."""
_as_known: set[type[Connection]] = set()
"""Those of which an answer had everything that is used later: the others will have it too."""


def worker_is_ending() -> bool:
    """Tell whether the process is a gunicorn worker that was told to end, without a connection."""
    worker = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return getattr(worker, "alive", True) is False


def close_if_idle(frame: FrameType | None) -> bool:
    """Have gunicorn's gevent worker accept nothing more if it has no connection, and tell whether.

    ``frame``: where the main greenlet waits.  False for everything else.
    """
    while frame is not None:
        if (frame.f_globals.get("__name__"), frame.f_code.co_name) == _GREENLETS_WAIT:
            try:
                servers = frame.f_locals["servers"]
                if any(server.pool.free_count() != server.pool.size for server in servers):
                    return False
                for server in servers:
                    server.close()
                return True
            except Exception:
                return False  # It is not as we know it, and ends when it looks for itself.
        frame = frame.f_back
    return False


def in_master() -> bool:
    """Return whether this code runs in a server's master, which forks its workers later."""
    frame: FrameType | None = sys._getframe(1)
    master = False
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        if module.startswith("gunicorn.workers."):
            return False  # A worker is forked from within the master's functions.
        master = master or module == "gunicorn.arbiter"
        frame = frame.f_back
    uwsgi = sys.modules.get("uwsgi")
    return master or (uwsgi is not None and uwsgi.worker_id() == 0)
