"""What the WSGI server that is running us looks like from below.

PEP 3333 gives an application no way to write while its iterable is blocked, to see that the client
has left, or to learn that the process is ending.  Every server has the objects for it, two or three
frames up the stack, in the function that calls the application and iterates its answer.  This
module finds that function and knows, server by server, where it keeps what we need; nothing else in
ssekit knows a server's internals.  Nothing is patched and no server is imported: one that is not in
the table below is served by the plain rules of PEP 3333.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterable, Mapping
from types import FrameType
from typing import Any

_SHUT_RD = 0  # socket's, which a CGI process starts the sooner without

# Modules whose wrappers pass every block on as it is, so that our bytes are the client's bytes.
_TRANSPARENT = {"werkzeug.wsgi", "werkzeug.wrappers.response"}


class Connection:
    """The connection under one answer, seen through the server's own objects for it.

    The base class is what every server has in common: a writing object that counts the bytes.
    """

    server: Any
    """The server's object whose ``write`` sends a block of the body."""
    answer: Any
    """The iterable that the server iterates, once there is one."""
    transparent = False
    """Whether only wrappers that pass blocks on unchanged stand between the server and us."""
    can_abandon = False
    """Whether the server can be told that the answer is complete while the connection goes on."""
    capacity: int | None = None
    """How many requests the server answers at once, if it says."""

    def __init__(self, local: Mapping[str, Any]) -> None:
        raise NotImplementedError

    @property
    def socket(self) -> Any:
        """The client's socket, or None where the server hides it."""
        return None

    @property
    def chunked(self) -> bool:
        """Whether the server sends the body in chunks (RFC 9112, section 7.1)."""
        return False

    @property
    def sent(self) -> int:
        """How many bytes of the body the server was given."""
        raise NotImplementedError

    @property
    def headers(self) -> Iterable[tuple[str, str]]:
        """The headers of the answer, as the server sends them."""
        raise NotImplementedError

    def direct(self, given: int) -> bool:
        """Tell whether a block may be written beside the iterable.

        It may if nothing on the way changes or holds back bytes: the server was given just the
        ``given`` bytes that the stream gave, and none of the headers announces a coding.
        """
        return self.transparent and self.sent == given and not self.encoded

    @property
    def encoded(self) -> bool:
        """Whether a header announces a coding of the body."""
        return any(name.lower() == "content-encoding" for name, _ in self.headers)

    def write(self, block: bytes) -> None:
        """Write a block as the server writes one; blocks as the server does."""
        self.server.write(block)

    def abandon(self) -> None:
        """Make the server believe that the answer is complete, and close its own descriptor only.

        Whoever has duplicated the descriptor then goes on with the answer's body, once the
        iterable has ended.  Only where `can_abandon`.
        """

    def ending(self) -> bool:
        """Tell whether the process was told to end."""
        return False

    def close_after(self) -> None:
        """Make the server close the connection after this answer, instead of keeping it."""

    def expect_nothing(self) -> None:
        """Let a server that ends see the end of the connection at once when it looks for it."""


class Gunicorn(Connection):
    """gunicorn's sync, gthread and gevent workers: a Response, and the worker."""

    can_abandon = True

    def __init__(self, local: Mapping[str, Any]) -> None:
        self.server = local["resp"]
        self.answer = local.get("respiter")
        self.worker = local["self"]
        self.capacity = getattr(self.worker, "worker_connections", None)

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

    def abandon(self) -> None:
        # Response.close() sends a last chunk only where it believes in chunks, and a connection
        # that must close is not read from any more.
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


class Waitress(Connection):
    """waitress: a WSGITask on a channel."""

    def __init__(self, local: Mapping[str, Any]) -> None:
        self.server = local["self"]
        self.answer = local.get("app_iter")

    @property
    def socket(self) -> Any:
        return self.server.channel.socket

    def direct(self, given: int) -> bool:
        # It counts no bytes of a body in chunks; that nothing stands between has to be enough.
        return self.transparent and bool(self.server.wrote_header) and not self.encoded

    @property
    def headers(self) -> Iterable[tuple[str, str]]:
        return self.server.response_headers  # type: ignore[no-any-return]

    def write(self, block: bytes) -> None:
        try:
            self.server.write(block)
        except Exception as error:
            # Its own error for a client that has gone; not an OSError, and not importable here.
            if type(error).__name__ == "ClientDisconnected":
                raise BrokenPipeError("the client has left") from error
            raise


class Wsgiref(Connection):
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


class Pywsgi(Connection):
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


def plain(connected: Any) -> bool:
    """Tell whether bytes written to the descriptor reach the client as they are: not with TLS."""
    if connected is None or connected.fileno() < 0:
        return False
    return not hasattr(connected, "getpeercert")


class Uwsgi(Connection):
    """uWSGI: nothing but the descriptor, from the module that it puts into the interpreter.

    So it is seen who has left; heartbeats go out where a source yields, as blocks.
    """

    def __init__(self, local: Mapping[str, Any]) -> None:
        self._socket = _Descriptor(local["connection_fd"]())

    @property
    def socket(self) -> Any:
        return self._socket

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
_LOOPS: dict[tuple[str, str], type[Connection]] = {
    ("gunicorn.workers.base_async", "handle_request"): Gunicorn,
    ("gunicorn.workers.gthread", "handle_request"): Gunicorn,
    ("gunicorn.workers.sync", "handle_request"): Gunicorn,
    ("waitress.task", "execute"): Waitress,
    ("wsgiref.handlers", "run"): Wsgiref,
    ("wsgiref.handlers", "finish_response"): Wsgiref,
    ("gevent.pywsgi", "run_application"): Pywsgi,
    ("gevent.pywsgi", "process_result"): Pywsgi,
}


def find(body: object = None, write: object = None) -> Connection | None:
    """Return the connection of the server whose loop has called us, if we know that server.

    ``body`` is the iterable that a stream gave to the server, ``write`` the callable that it got
    from ``start_response``, whichever it sends with.
    """
    frame: FrameType | None = sys._getframe(1)
    transparent = True
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        kind = _LOOPS.get((module, frame.f_code.co_name))
        if kind is not None:
            connection = kind(frame.f_locals)
            if write is not None:
                connection.transparent = getattr(write, "__self__", None) is connection.server
            else:
                connection.transparent = transparent and (
                    connection.answer is body or type(connection.answer).__module__ in _TRANSPARENT
                )
            return connection
        transparent = transparent and (module in _TRANSPARENT or module.startswith("ssekit."))
        frame = frame.f_back
    # uWSGI calls from C, so that there is no frame of its own to find.
    uwsgi = sys.modules.get("uwsgi")
    return None if uwsgi is None else Uwsgi(vars(uwsgi))


def ending() -> bool:
    """Return whether this process is a server's worker that was told to end.

    gunicorn's workers handle SIGTERM in a method of their own, whichever kind they are.
    """
    worker = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return getattr(worker, "alive", True) is False


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
