"""CGI scripts and scripts in a terminal, as processes: the host has only pipes and signals."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from ssekit import Decoder, Stream, cgi
from tests.commands import printed
from tests.servers import ROOT
from tests.waiting import until

CLOCK = ROOT / "scripts" / "cgi-bin" / "clock.py"
SCRIPTS = ROOT / "tests" / "apps" / "scripts"
HEAD = (
    b"Status: 200 OK\r\n"
    b"Content-Type: text/event-stream; charset=utf-8\r\n"
    b"Cache-Control: no-cache, no-transform\r\n"
    b"X-Accel-Buffering: no\r\n"
    b"\r\n"
)
OPENING = re.compile(rb"(?::|retry: [0-9]+)\n")
REQUEST = {"GATEWAY_INTERFACE": "CGI/1.1", "REQUEST_METHOD": "GET"}


def body_of(output: bytes) -> bytes:
    """The stream after the head and its opening line."""
    assert output.startswith(HEAD)
    opening = OPENING.match(output, len(HEAD))
    assert opening, output
    return output[opening.end() :]


class Script:
    """A running script; ``output`` reads what it has written."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.output = b""

    def until(self, wanted: bytes) -> bytes:
        assert self.process.stdout is not None
        while wanted not in self.output:
            more = os.read(self.process.stdout.fileno(), 65536)
            assert more, f"{wanted!r} wanted, got {self.output!r}"
            self.output += more
        return self.output

    def rest(self) -> tuple[bytes, str]:
        output, errors = self.process.communicate(timeout=10)
        return self.output + output, errors.decode()


@contextmanager
def script(path: Path, *before: str, **env: str) -> Iterator[Script]:
    process = subprocess.Popen(
        [*before, sys.executable, path],
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
    )
    with process:
        try:
            yield Script(process)
        finally:
            process.kill()


KINDS = pytest.mark.parametrize("kind", ["application", "script"])
SLEEPS = pytest.mark.parametrize("wait", ["sleep", "every"])
QUICK = {**REQUEST, "SSEKIT_HEARTBEAT": "0.1"}


@KINDS
@SLEEPS
def test_a_cgi_stream_leaves_at_once_and_beats(kind: str, wait: str) -> None:
    with script(SCRIPTS / f"streaming_{kind}.py", WAIT=wait, **QUICK) as run:
        began = time.monotonic()
        output = run.until(b"\n:\n:\n:\n")
        assert time.monotonic() - began < 5
    assert body_of(output).startswith(b"data: first\n\n:\n:\n")


@KINDS
@SLEEPS
def test_a_closed_pipe_ends_a_silent_script(kind: str, wait: str) -> None:
    with script(SCRIPTS / f"streaming_{kind}.py", WAIT=wait, **QUICK) as run:
        run.until(b"first")
        assert run.process.stdout is not None
        assert run.process.stderr is not None
        run.process.stdout.close()
        assert run.process.stderr.read() == b"source ended\n"
        assert run.process.wait(5) == 0


@KINDS
@SLEEPS
def test_sigterm_ends_a_script_with_a_closing_retry(kind: str, wait: str) -> None:
    with script(SCRIPTS / f"streaming_{kind}.py", WAIT=wait, **REQUEST) as run:
        run.until(b"first")
        run.process.terminate()
        output, errors = run.rest()
    assert errors == "source ended\n"
    assert output.split(b"\n")[-2].startswith(b"retry: ")
    assert run.process.returncode == 0


@KINDS
def test_the_life_of_a_cgi_stream_is_bounded(kind: str) -> None:
    path = SCRIPTS / f"streaming_{kind}.py"
    with script(path, **REQUEST, WAIT="sleep", SSEKIT_MAX_SECONDS="0.5") as run:
        output, errors = run.rest()
    assert errors == "source ended\n"
    assert output.split(b"\n")[-2].startswith(b"retry: ")
    assert run.process.returncode == 0


@KINDS
def test_a_script_that_fails_is_logged_and_ends_between_events(kind: str) -> None:
    with script(SCRIPTS / f"streaming_{kind}.py", WAIT="fail", **REQUEST) as run:
        output, errors = run.rest()
    assert "ZeroDivisionError" in errors
    assert body_of(output).startswith(b"data: first\n\nretry: ")


@KINDS
def test_a_script_that_fails_before_it_sends_is_a_500(kind: str) -> None:
    with script(SCRIPTS / f"failing_{kind}.py", **REQUEST) as run:
        output, errors = run.rest()
    assert output.startswith(b"Status: 500 Internal Server Error\r\n")
    assert "ZeroDivisionError" in errors
    assert run.process.returncode == 1


@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", 200), ("POST", 405), ("OPTIONS", 204), ("BREW", 405)]
)
def test_other_methods_are_answered_without_a_stream(method: str, status: int) -> None:
    with script(CLOCK, **{**REQUEST, "REQUEST_METHOD": method}) as run:
        output, errors = run.rest()
    assert output.startswith(f"Status: {status} ".encode())
    assert b"data:" not in output
    assert errors == ""


def test_a_page_and_a_post_work_through_cgi_run() -> None:
    answer = subprocess.run(
        [sys.executable, SCRIPTS / "form.py"],
        input=b"form",
        env={**os.environ, **REQUEST, "PATH_INFO": "/\u00e9", "CONTENT_LENGTH": "4"},
        capture_output=True,
        check=True,
    )
    assert answer.stdout == (
        b"Status: 200 OK\r\nContent-Type: text/plain\r\n\r\nwrite /\xc3\xa9 form"
    )


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: b", "a\nb", "a\0b"])
def test_a_header_cannot_add_lines_to_a_cgi_answer(value: str) -> None:
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        cgi.head("200 OK", [("X-Mine", value)])


def test_a_script_in_a_pipe_prints_the_stream_and_ends_with_its_reader() -> None:
    with script(CLOCK, QUERY_STRING="interval=0.1", GATEWAY_INTERFACE="") as run:
        output = run.until(b"}\n\n")
        assert run.process.stdout is not None
        run.process.stdout.close()
        assert run.process.stderr is not None
        assert run.process.stderr.read() == b""
        assert run.process.wait(5) == 0
    (event, *_) = Decoder().feed(output)
    assert abs(json.loads(event.data)["id"] - time.time()) < 60


@pytest.mark.parametrize("exit", ["", "yes"])
def test_a_script_that_sends_nothing_is_an_empty_stream(exit: str) -> None:
    with script(SCRIPTS / "silent.py", EXIT=exit, **REQUEST) as run:
        output, errors = run.rest()
        assert (body_of(output), errors) == (b"", "")
    with script(SCRIPTS / "silent.py", EXIT=exit, **{**REQUEST, "REQUEST_METHOD": "POST"}) as run:
        assert run.rest()[0].startswith(b"Status: 405 ")


def test_sigterm_before_the_first_event_is_answered_with_a_closing_retry() -> None:
    with script(SCRIPTS / "slow.py", **REQUEST) as run:
        assert run.process.stderr is not None
        assert run.process.stderr.readline() == b"not yet\n"
        run.process.terminate()
        output, errors = run.rest()
    assert body_of(output).startswith(b"retry: ")
    assert errors == ""


def test_nohup_keeps_a_script_alive_when_its_terminal_goes() -> None:
    with script(CLOCK, "nohup", QUERY_STRING="interval=0.1", GATEWAY_INTERFACE="") as run:
        run.until(b"}\n\n")
        run.process.send_signal(signal.SIGHUP)
        for _ in range(3):
            run.output = b""
            run.until(b"}\n\n")


@pytest.mark.parametrize("sends", [True, False])
def test_ctrl_c_in_a_terminal_ends_a_script_quietly(sends: bool) -> None:
    path = CLOCK if sends else SCRIPTS / "slow.py"
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, str(path)])
    shown = b""
    while (b"Welcome" if sends else b"not yet") not in shown:
        shown += os.read(terminal, 4096)
    os.write(terminal, b"\x03")
    status: list[int] = []

    def ended() -> bool:
        done, code = os.waitpid(pid, os.WNOHANG)
        if done:
            status.append(os.waitstatus_to_exitcode(code))
        return bool(done)

    until(ended)
    assert status == [128 + signal.SIGINT]
    with suppress(OSError):  # Linux reports EIO once no process has the terminal open.
        shown += os.read(terminal, 4096)
    os.close(terminal)
    assert b"Traceback" not in shown
    assert not shown.startswith(b"Status")


def imported_by(path: Path, *options: str, **env: str) -> set[str]:
    answer = subprocess.run(
        [sys.executable, *options, "-X", "importtime", path],
        env={**os.environ, **REQUEST, **env},
        capture_output=True,
        check=True,
    )
    return {line.rpartition(b"|")[2].strip().decode() for line in answer.stderr.splitlines()}


SLOW_TO_IMPORT = {"werkzeug", "gevent", "redis", "httpx", "logging", "dataclasses", "inspect"}


def test_a_cgi_start_imports_nothing_that_is_slow() -> None:
    imported = imported_by(CLOCK, SSEKIT_MAX_SECONDS="0.2")
    assert "ssekit.wire" in imported
    assert not SLOW_TO_IMPORT & imported
    # -I -S: what the environment of the tests imports at its own start does not count.
    imported = imported_by(ROOT / "bench" / "apps" / "cgi_script.py", "-I", "-S")
    assert "ssekit.wire" in imported
    assert not (SLOW_TO_IMPORT | {"json", "random", "traceback", "urllib.parse"}) & imported


def test_a_star_import_gives_a_script_what_it_calls_and_starts_nothing() -> None:
    assert printed("star_import") == "\n"


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_the_life_of_a_cgi_stream_must_be_above_zero(seconds: float) -> None:
    with pytest.raises(ValueError, match="max_seconds"):
        cgi.run(Stream([]), max_seconds=seconds)


@pytest.mark.parametrize("value", ["soon", "0", "-1", "nan"])
def test_a_wrong_setting_of_the_operator_says_what_to_do(value: str) -> None:
    with script(CLOCK, **REQUEST, SSEKIT_HEARTBEAT=value) as run:
        _, errors = run.rest()
    assert "SSEKIT_HEARTBEAT must be seconds above 0" in errors
