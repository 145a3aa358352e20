"""One run of a streaming script for one client: where its events go, and how it ends.

`ssekit.script` sends through the run that is current.  A script that the interpreter runs by
itself, as CGI or in a terminal, has `ProcessRun`, which lasts as long as the process; a run that
`ssekit.script.folder` starts is made current there.  A CGI process starts with this module, so it
imports little.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from ssekit import cgi, host
from ssekit.errors import SSEError
from ssekit.host.process import ProcessClient
from ssekit.stream.response import Headers, Offer, Pairs, closing_retry, opening


class Run:
    """One run: `begin` sends the headers, `put` a block; both return when it has left."""

    client: host.Client
    environ: dict[str, Any]

    def __init__(self) -> None:
        self.begun = False

    def begin(self, headers: Pairs | Mapping[str, str] = ()) -> None:
        """Send the headers and the opening, once; later calls do nothing."""
        if not self.begun:
            self.client.leave()
            self._open(headers)
            self.client.enter()

    def put(self, block: bytes) -> None:
        """Send a block.  Raises `ssekit.host.Ended` once the script has to end."""
        client = self.client
        client.leave()
        client.wrote(block)
        self._write(block)
        client.enter()

    def _open(self, headers: Pairs | Mapping[str, str]) -> None:
        """Do so, and set ``begun`` once the headers are on their way."""
        raise NotImplementedError

    def _write(self, block: bytes) -> None:
        raise NotImplementedError


class ProcessRun(Run):
    """The run of a script that has the process: CGI if the environment says so, else a terminal."""

    def __init__(self) -> None:
        super().__init__()
        self._cgi = os.environ.get("GATEWAY_INTERFACE", "").startswith("CGI")
        client = ProcessClient(
            _seconds("SSEKIT_HEARTBEAT", 15.0) if self._cgi else math.inf,
            _seconds("SSEKIT_MAX_SECONDS", cgi.MAX_SECONDS) if self._cgi else math.inf,
            exits=True,
        )
        self.client = client
        self.environ = cgi.environment(client)
        self._output = client
        self._signals = contextlib.ExitStack()
        self._signals.enter_context(client.signals())
        host.become(client)
        atexit.register(self._at_exit)
        client.enter()

    def _open(self, headers: Pairs | Mapping[str, str]) -> None:
        if not self._answer(headers):
            sys.exit(0)
        self.client.attach(None)

    def _answer(self, headers: Pairs | Mapping[str, str] = ()) -> bool:
        """Answer the request; false if not with a stream."""
        answer = Offer().answer(self.environ, headers)
        self.begun = True
        if not self._cgi:
            return True
        if not answer.streams:
            for block in answer.give(self.environ, self._send_head):
                self._output.send(block)
            return False
        self._send_head(answer.status, answer.headers)
        block = opening(None)
        self.client.wrote(block)
        self._output.send(block)
        return True

    def _send_head(self, status: str, headers: Headers) -> None:
        self._output.send_head(cgi.head(status, headers))

    def _write(self, block: bytes) -> None:
        self._output.send(block)

    def _at_exit(self) -> None:
        self.client.leave()
        self._signals.close()
        # The interpreter has printed the traceback of what ended the script, if anything did.
        failed = getattr(sys, "last_value", None) is not None
        if not self._cgi or self.client.ended == host.DISCONNECTED:
            return
        if failed and not self.begun:
            self._output.send_head(cgi.FAILED)
            return
        # A gateway makes an error of a script without output, and of that no client comes back.
        streams = self.begun or self._answer()
        if streams and (failed or self.client.ended is not None):
            self._output.send(closing_retry())


class _Process:
    run: ProcessRun | None = None  # also of threads that a script starts
    serves = False  # others than itself


_process = _Process()
_current: ContextVar[Run | None] = ContextVar("ssekit_run", default=None)


def current() -> Run:
    """Return the run of the code that calls.

    Raises `SSEError` in a server for a thread that belongs to no client.
    """
    run = _current.get()
    if run is not None:
        return run
    if _process.run is None:
        if _process.serves:
            raise SSEError(
                "no client's run is here; a script starts a thread or greenlet that sends with "
                "contextvars.copy_context().run"
            )
        _process.run = ProcessRun()
    return _process.run


def become(run: Run) -> None:
    """Make ``run`` the current one for the rest of this context."""
    _process.serves = True
    _current.set(run)
    host.become(run.client)


def _seconds(name: str, default: float) -> float:
    """A setting of the CGI host's operator, from the environment."""
    value = os.environ.get(name)
    if value is None:
        return default
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not seconds > 0:
        raise SSEError(f"{name} must be seconds above 0, not {value!r}")
    return seconds
