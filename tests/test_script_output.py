"""What a script sends leaves whole and in order, however its output is read."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from ssekit import Decoder
from ssekit.host import ENDING, Ended, process
from tests.servers import ROOT
from tests.waiting import until

FLOOD = ROOT / "tests" / "apps" / "scripts" / "flood.py"
CGI = {"GATEWAY_INTERFACE": "CGI/1.1", "REQUEST_METHOD": "GET"}
TERMINAL = {"GATEWAY_INTERFACE": ""}


class Flooding:
    """A script whose output is a pipe that is read only by `read`."""

    def __init__(self, process: subprocess.Popen[bytes], pipe: int) -> None:
        self.process = process
        self.pipe = pipe

    def read(self) -> bytes:
        """Everything until the script closes the pipe."""
        output = b""
        while piece := os.read(self.pipe, 65_536):
            output += piece
        return output

    def seconds_to_end(self) -> float:
        began = time.monotonic()
        self.process.wait(20)
        return time.monotonic() - began


@contextmanager
def flooding(
    count: int, size: int, where: dict[str, str], *, blocking: bool = False, **env: str
) -> Iterator[Flooding]:
    reading, writing = os.pipe()
    os.set_blocking(writing, blocking)
    query = {"QUERY_STRING": f"count={count}&size={size}", "PYTHONPATH": str(ROOT)}
    running = subprocess.Popen(
        [sys.executable, FLOOD],
        env={**os.environ, **where, **query, **env},
        stdin=subprocess.DEVNULL,
        stdout=writing,
        stderr=subprocess.PIPE,
    )
    with running:
        try:
            until(lambda: not select.select([], [writing], [], 0)[1], what="the pipe to be full")
            os.close(writing)
            yield Flooding(running, reading)
        finally:
            running.kill()
            with suppress(OSError):
                os.close(reading)


def sent(count: int, size: int) -> bytes:
    return b"".join(b"data: %b\n\n" % f"{n} ".ljust(size, "x").encode() for n in range(count))


def stream_in(output: bytes, where: dict[str, str]) -> bytes:
    """The events, without the head and the opening line of a CGI answer."""
    if where is TERMINAL:
        return output
    return output.partition(b"\r\n\r\n")[2].partition(b"\n")[2]


WHERE = pytest.mark.parametrize("where", [CGI, TERMINAL], ids=["cgi", "terminal"])
BLOCKING = pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "non-blocking"])


@WHERE
@BLOCKING
@pytest.mark.parametrize(("count", "size"), [(2000, 200), (2, 300_000)])
def test_a_slow_reader_gets_every_event_whole(
    where: dict[str, str], blocking: bool, count: int, size: int
) -> None:
    with flooding(count, size, where, blocking=blocking) as flood:
        assert stream_in(flood.read(), where) == sent(count, size)
        assert flood.process.wait(10) == 0


@WHERE
@BLOCKING
def test_sigterm_ends_a_script_whose_reader_does_not_read(
    where: dict[str, str], blocking: bool
) -> None:
    with flooding(2000, 200, where, blocking=blocking) as flood:
        flood.process.send_signal(signal.SIGTERM)
        assert flood.seconds_to_end() < process.UNREAD + 3
        # Nothing follows a cut: a closing retry would become a part of the event.
        assert sent(2000, 200).startswith(stream_in(flood.read(), where))
        assert flood.process.stderr is not None
        assert flood.process.stderr.read() == b""


def test_sigterm_ends_a_script_between_events_if_its_reader_reads_on() -> None:
    with flooding(2000, 200, CGI) as flood:
        flood.process.send_signal(signal.SIGTERM)
        events = Decoder().feed(flood.read())
    # The event that was being written is complete, the closing retry comes after it.
    assert 200 < len(events) < 2000
    assert {len(event.data) for event in events} == {200}


def test_a_stream_whose_reader_does_not_read_ends_after_its_life() -> None:
    with flooding(2000, 200, CGI, SSEKIT_MAX_SECONDS="0.3") as flood:
        assert flood.seconds_to_end() < process.UNREAD + 3
        assert sent(2000, 200).startswith(stream_in(flood.read(), CGI))


def test_a_heartbeat_never_lands_in_an_event_that_waits_for_its_reader() -> None:
    with flooding(3, 300_000, CGI, SSEKIT_HEARTBEAT="0.02") as flood:
        time.sleep(0.2)  # the time of ten heartbeats
        output = stream_in(flood.read(), CGI)
        assert re.sub(rb"\n\n(:\n)+", b"\n\n", output) == sent(3, 300_000)


@WHERE
@BLOCKING
def test_a_script_ends_when_its_reader_goes_while_it_waits(
    where: dict[str, str], blocking: bool
) -> None:
    with flooding(2000, 200, where, blocking=blocking) as flood:
        os.close(flood.pipe)
        assert flood.process.wait(10) == 0
        assert flood.process.stderr is not None
        assert flood.process.stderr.read() == b""


def test_nothing_follows_an_event_that_was_cut() -> None:
    reading, writing = os.pipe()
    client = process.ProcessClient(descriptor=writing)
    client.end(ENDING)
    with pytest.raises(Ended):
        client.send(b"data: %b\n\n" % (b"x" * 1_000_000))
    assert os.read(reading, 1_000_000)
    client.send_last(b"retry: 1000\n")
    client.send(b"data: y\n\n")
    os.close(writing)
    assert os.read(reading, 1_000_000) == b""
    os.close(reading)


def test_a_signal_that_comes_just_before_a_wait_is_not_seen_only_after_it() -> None:
    class Deaf(threading.Event):
        """Has the handlers of signals run after its wait, as one that comes just before does."""

        def wait(self, timeout: float | None = None) -> bool:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
            try:
                # To this thread: another one would take it at once.
                signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
                return super().wait(timeout)
            finally:  # Whatever is raised: each process that a later test starts inherits the mask.
                signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])

    client = process.ProcessClient()
    client._flag = Deaf()
    with client.signals():
        client.enter()
        began = time.monotonic()
        with pytest.raises(Ended):
            client.wait(30)
    assert time.monotonic() - began < 10
