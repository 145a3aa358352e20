"""One run of a script inside a WSGI call, sending with the server's ``write`` (PEP 3333).

Under gunicorn's gevent worker the run takes the connection over once the headers have left, and
goes on in a greenlet of its own when the server's has ended.
"""

from __future__ import annotations

import builtins
import contextlib
import logging
from collections.abc import Callable
from os.path import basename
from types import CodeType, FunctionType
from typing import Any

from ssekit import host
from ssekit.errors import SSEError
from ssekit.host import wsgi_servers
from ssekit.host.connection import Connection
from ssekit.host.counting import Counts
from ssekit.script import run as runs
from ssekit.stream.admission import Admission
from ssekit.stream.kept import Kept, kept, restored
from ssekit.stream.open import OpenStream
from ssekit.stream.response import Headers, Offer, closing_retry, misreads_an_end

log = logging.getLogger("ssekit.script")


class WsgiRun(runs.Run):
    """A run inside a WSGI call (PEP 3333, "The write() Callable")."""

    def __init__(
        self,
        environ: dict[str, Any],
        start_response: Callable[..., Any],
        client: host.Client,
        offer: Offer,
        retry: int | None,
        *,
        server: Connection | None,
        admission: Admission,
        counts: Counts,
        code: CodeType,
    ) -> None:
        super().__init__(offer, retry)
        self._server = server
        self._admission = admission
        self._counts = counts
        self._code = code
        self._stream: OpenStream | None = None
        self._taken: Connection | None = None
        self._environ: dict[str, Any] | Kept = environ
        self.client = client
        self._start_response: Callable[..., Any] = start_response
        self._send: Callable[[bytes], Any] = self._not_begun

    @property
    def environ(self) -> dict[str, Any]:
        return restored(self._environ)

    def execute(self) -> bool:
        """Run the script to its end; false if it failed before it had sent anything."""
        runs.become(self)
        why = "source ended"
        try:
            try:
                self._run_script()
                if self.sent == runs.NOTHING:
                    self.begin()
            finally:
                self.client.leave()
        except SystemExit:
            pass  # It has sent nothing, and the request wanted no stream.
        except host.Ended as ended:
            why = ended.reason
            if why != host.DISCONNECTED:
                self._last(closing_retry(self.retry))
        except BaseException as error:
            why = "source failed"
            if not host.failed(error):
                why = host.ENDING
                raise
            log.exception("the script %s failed; its stream ends", basename(self._code.co_filename))
            if self.sent == runs.NOTHING:
                return False
            self._last(closing_retry(self.retry))
        finally:
            self.client.detach()
            if self._taken is not None:
                self._taken.end()
            if self._stream is not None:
                self._stream.end(why)
            self._admission.end()
        return True

    def _run_script(self) -> None:
        # As exec() would, but a call of a function takes none of the C stack, and what is on that
        # when the script waits is kept for each client.
        names = {
            "__name__": "__main__",
            "__file__": self._code.co_filename,
            "__builtins__": builtins,
        }
        try:
            FunctionType(self._code, names)()
        except SystemExit:  # A script may end itself with sys.exit().
            return

    def put(self, block: bytes) -> None:
        self.client.events += 1
        self._counts.delivered(1, len(block))
        super().put(block)

    def _start(self, status: str, headers: Headers) -> None:
        write = self._start_response(status, headers)
        if isinstance(getattr(write, "__self__", None), list):
            raise SSEError(
                "the framework keeps what a script sends until the script ends; mount the folder "
                "beside the framework, for example with werkzeug's DispatcherMiddleware"
            )
        self._send = write

    def _attach(self) -> None:
        self._counts.begin()
        self._stream = OpenStream(
            self.environ,
            self._admission,
            heartbeat=self.client.heartbeat,
            retry=self.retry,
            counts=self._counts,
            client=self.client,
        )
        connection = wsgi_servers.begun(self._server, self._send)
        taken = None if connection is None else self.client.leave_server(connection)
        self._server = None  # It refers to all that hangs on the request.
        if taken is None:
            self.client.attach(connection)
            if connection is not None:
                self._send = connection.write
            return
        del connection  # As the server, and what is replaced below.
        self._taken, self._send = taken, taken.write
        self._admission.release()
        self._environ = kept(self.environ)
        self._start_response = _has_begun
        self.client.release_server()

    def _write(self, block: bytes) -> None:
        try:
            self._send(block)
        except OSError as error:
            self.client.ended = self.client.ended or host.DISCONNECTED
            raise host.Ended(host.DISCONNECTED) from error

    def _last(self, block: bytes) -> None:
        if self.sent == runs.STREAM:
            with contextlib.suppress(host.Ended):
                self._write(block)
            connection = self._taken or self.client.connection
            if misreads_an_end(self.environ) and connection is not None:
                connection.cut()

    def _not_begun(self, block: bytes) -> None:
        raise AssertionError("a block was put before the run had begun")


def _has_begun(*_: object) -> None:
    raise AssertionError("the answer has begun")
