"""One run of a streaming script for one client: where its answer goes, and how it ends.

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
from typing import Any

from ssekit import cgi, host
from ssekit.errors import SSEError
from ssekit.host.process import ProcessClient
from ssekit.stream.response import Answer, Headers, Offer, Pairs, closing_retry, opening

NOTHING, STREAM, ANSWER, REFUSAL = "nothing", "a stream", "an answer", "a refusal"
"""What a run has sent: a refusal is an answer that the script has not made, such as a 405."""


class Run:
    """One run: each call returns when its bytes have left the process.

    ``retry`` is that of `ssekit.Stream`.  A subclass says how a head and a block leave.
    """

    client: host.Client

    def __init__(self, offer: Offer, retry: int | None = None) -> None:
        self.sent = NOTHING
        self.offer = offer
        self.retry = retry

    @property
    def environ(self) -> dict[str, Any]:
        """The request's WSGI environ, without the server's own objects once those have gone."""
        raise NotImplementedError

    def begin(self, headers: Pairs | Mapping[str, str] = ()) -> None:
        """Send the headers and the opening of the stream, once; later calls do nothing.

        Raises `SSEError` after `respond`, ValueError for a header that is not a script's to set,
        and SystemExit where the request gets no stream: for HEAD, or with a method or an Accept
        that a stream does not have.
        """
        if self.sent == STREAM:
            return
        if self.sent == ANSWER:
            raise SSEError("respond() has answered this request: no stream can follow")
        answer = self.offer.answer(self.environ, headers)
        if not answer.streams:
            if self.sent != REFUSAL:
                self._give(answer, REFUSAL)
            raise SystemExit(0)
        self.client.leave()
        self._start(answer.status, answer.headers)
        self.sent = STREAM
        if block := self._opening():
            self.client.wrote(block)
            self._write(block)
        self._attach()
        self.client.enter()

    def put(self, block: bytes) -> None:
        """Send a block of the stream.  Raises `ssekit.host.Ended` once the script has to end."""
        client = self.client
        client.leave()
        client.wrote(block)
        self._write(block)
        client.enter()

    def respond(self, answer: Answer) -> None:
        """Send an answer that is no stream.  Raises `SSEError` if it is not the first."""
        if self.sent == STREAM:
            raise SSEError(
                "the stream has begun: respond() has to come before any send(), comment() or "
                "start(), and instead of them"
            )
        if self.sent == ANSWER:
            raise SSEError("respond() has answered this request already: call it once")
        if self.sent == REFUSAL:
            raise SystemExit(0)
        self._give(answer, ANSWER)

    def _give(self, answer: Answer, kind: str) -> None:
        self.client.leave()
        blocks = answer.give(self.environ, self._start)
        self.sent = kind
        for block in blocks:
            self._write(block)
        self.client.enter()

    def _opening(self) -> bytes:
        return opening(self.retry)

    def _attach(self) -> None:
        self.client.attach(None)

    def _start(self, status: str, headers: Headers) -> None:
        """Send the head, or have it sent with the first block."""
        raise NotImplementedError

    def _write(self, block: bytes) -> None:
        raise NotImplementedError


class ProcessRun(Run):
    """The run of a script that has the process: CGI if the environment says so, else a terminal."""

    client: ProcessClient

    def __init__(self) -> None:
        super().__init__(Offer())
        self._cgi = cgi.is_cgi()
        self.client = ProcessClient(
            _seconds("SSEKIT_HEARTBEAT", 15.0) if self._cgi else math.inf,
            _seconds("SSEKIT_MAX_SECONDS", cgi.MAX_SECONDS) if self._cgi else math.inf,
            descriptor=cgi.take_output() if self._cgi else 1,
            exits=True,
        )
        self.client.run = self
        self._environ = cgi.environment(self.client)
        self._signals = contextlib.ExitStack()
        self._signals.enter_context(self.client.signals())
        host.become(self.client, everywhere=True)
        atexit.register(self._at_exit)
        self.client.enter()

    @property
    def environ(self) -> dict[str, Any]:
        return self._environ

    def _opening(self) -> bytes:
        return super()._opening() if self._cgi else b""

    def _start(self, status: str, headers: Headers) -> None:
        if self._cgi:
            self.client.send_head(cgi.head(status, headers))

    def _write(self, block: bytes) -> None:
        if not self._cgi and sys.stdout is not None:
            # What the script has printed was there first.
            try:
                sys.stdout.flush()
            except BlockingIOError:
                pass  # The rest of it stays in its buffer, and leaves later.
            except OSError:
                self.client.ended = self.client.ended or host.DISCONNECTED
        self.client.send(block)

    def _at_exit(self) -> None:
        client = self.client
        client.leave()
        self._signals.close()
        if not self._cgi or client.ended == host.DISCONNECTED:
            return
        failed = cgi.has_failed()
        if self.sent == NOTHING:
            if failed:
                client.send_head(cgi.FAILED)
                return
            # A gateway makes an error of a script without output, after which no client returns.
            with contextlib.suppress(SystemExit):
                self.begin()
            client.leave()
        if self.sent == STREAM and (failed or client.ended is not None):
            client.send_last(closing_retry(self.retry))


class _Process:
    serves = False  # others than itself


_process = _Process()


def current() -> Run:
    """Return the run of the code that calls.

    Raises `SSEError` in a server for a thread that belongs to no client.
    """
    run = host.current().run
    if isinstance(run, Run):
        return run
    if _process.serves:
        raise SSEError(
            "this code runs for no client: a script starts a thread or greenlet that sends with "
            "contextvars.copy_context().run"
        )
    return ProcessRun()


def become(run: Run) -> None:
    """Make ``run`` the current one for the rest of this context."""
    _process.serves = True
    run.client.run = run
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


if cgi.is_cgi():
    # Before the first call here: what is printed until then would be the head of the answer.
    cgi.guard_output()
