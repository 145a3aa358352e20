"""CGI scripts and scripts in a terminal, as processes: the host has only pipes and signals."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from ssekit import Decoder, Stream, cgi
from tests.clients import after_opening
from tests.servers import ROOT
from tests.waiting import until

CLOCK = ROOT / "scripts" / "cgi-bin" / "clock.py"
HEAD = (
    b"Status: 200 OK\r\n"
    b"Content-Type: text/event-stream; charset=utf-8\r\n"
    b"Cache-Control: no-cache, no-transform\r\n"
    b"X-Accel-Buffering: no\r\n"
    b"\r\n"
)
REQUEST = {"GATEWAY_INTERFACE": "CGI/1.1", "REQUEST_METHOD": "GET"}


def after_head(output: bytes) -> bytes:
    """Return what follows the head of a stream, and its opening."""
    assert output.startswith(HEAD)
    return after_opening(output.removeprefix(HEAD))


APPLICATION = """
import sys, time
sys.path.insert(0, {root!r})
from ssekit import Stream, every
from ssekit.cgi import run

def source():
    try:
        yield "first"
        {wait}
    finally:
        print("source ended", file=sys.stderr, flush=True)

run(Stream(source, heartbeat=0.1), max_seconds={life})
"""

SCRIPT = """
import sys, time
sys.path.insert(0, {root!r})
from ssekit import every
from ssekit.script import send

try:
    send("first")
    {wait}
finally:
    print("source ended", file=sys.stderr, flush=True)
"""


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


def written(folder: Path, text: str, wait: str, life: float = 60) -> Path:
    path = folder / "streaming.py"
    path.write_text(text.format(root=str(ROOT), wait=wait, life=life))
    return path


KINDS = pytest.mark.parametrize("text", [APPLICATION, SCRIPT], ids=["application", "script"])
SLEEPS = pytest.mark.parametrize("wait", ["time.sleep(60)", "list(every(60))"])
QUICK = {**REQUEST, "SSEKIT_HEARTBEAT": "0.1"}


@KINDS
@SLEEPS
def test_a_cgi_stream_leaves_at_once_and_beats(tmp_path: Path, text: str, wait: str) -> None:
    with script(written(tmp_path, text, wait), **QUICK) as run:
        began = time.monotonic()
        output = run.until(b"\n:\n:\n:\n")
        assert time.monotonic() - began < 5
    assert after_head(output).startswith(b"data: first\n\n:\n:\n")


@KINDS
@SLEEPS
def test_a_closed_pipe_ends_a_silent_script(tmp_path: Path, text: str, wait: str) -> None:
    with script(written(tmp_path, text, wait), **QUICK) as run:
        run.until(b"first")
        assert run.process.stdout is not None
        assert run.process.stderr is not None
        run.process.stdout.close()
        assert run.process.stderr.read() == b"source ended\n"
        assert run.process.wait(5) == 0


@KINDS
@SLEEPS
def test_sigterm_ends_a_script_with_its_farewell(tmp_path: Path, text: str, wait: str) -> None:
    with script(written(tmp_path, text, wait), **REQUEST) as run:
        run.until(b"first")
        run.process.terminate()
        output, errors = run.rest()
    assert errors == "source ended\n"
    assert output.split(b"\n")[-2].startswith(b"retry: ")
    assert run.process.returncode == 0


@KINDS
def test_the_life_of_a_cgi_stream_is_bounded(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text, "time.sleep(60)", 0.5)
    with script(path, **REQUEST, SSEKIT_MAX_SECONDS="0.5") as run:
        output, errors = run.rest()
    assert errors == "source ended\n"
    assert output.split(b"\n")[-2].startswith(b"retry: ")
    assert run.process.returncode == 0


@KINDS
def test_a_script_that_fails_is_logged_and_ends_between_events(tmp_path: Path, text: str) -> None:
    with script(written(tmp_path, text, "1 / 0"), **REQUEST) as run:
        output, errors = run.rest()
    assert "ZeroDivisionError" in errors
    assert after_head(output).startswith(b"data: first\n\nretry: ")


def test_a_script_that_fails_before_it_sends_is_a_500(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    for text in ("from ssekit.script import environ\n1 / 0", APPLICATION.partition("def")[0]):
        body = text.format(root=str(ROOT))
        body += "" if "/ 0" in text else "run(lambda environ, start_response: 1 / 0)"
        path.write_text(f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{body}\n")
        with script(path, **REQUEST) as run:
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


def test_a_page_and_a_post_work_through_cgi_run(tmp_path: Path) -> None:
    path = tmp_path / "page.py"
    path.write_text(f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from ssekit.cgi import run

def app(environ, start_response):
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    start_response("200 OK", [("Content-Type", "text/plain")])(b"write ")
    return [environ["PATH_INFO"].encode("latin-1"), b" ", body]

run(app)
""")
    answer = subprocess.run(
        [sys.executable, path],
        input=b"form",
        env={**os.environ, **REQUEST, "PATH_INFO": "/\u00e9", "CONTENT_LENGTH": "4"},
        capture_output=True,
        check=True,
    )
    assert answer.stdout == (
        b"Status: 200 OK\r\nContent-Type: text/plain\r\n\r\nwrite /\xc3\xa9 form"
    )


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


def test_a_script_that_sends_nothing_is_an_empty_stream(tmp_path: Path) -> None:
    path = tmp_path / "nothing.py"
    for end in ("", "sys.exit()"):
        begin = f"import sys; sys.path.insert(0, {str(ROOT)!r})"
        path.write_text(f"{begin}; from ssekit.script import environ\n{end}")
        with script(path, **REQUEST) as run:
            output, errors = run.rest()
            assert (after_head(output), errors) == (b"", "")
        with script(path, **{**REQUEST, "REQUEST_METHOD": "POST"}) as run:
            assert run.rest()[0].startswith(b"Status: 405 ")


SLOW = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
from ssekit.script import environ, send
print("not yet", file=sys.stderr, flush=True)
time.sleep(60)
send("too late")
"""


def test_sigterm_before_the_first_event_is_answered_with_a_farewell(tmp_path: Path) -> None:
    path = tmp_path / "slow.py"
    path.write_text(SLOW)
    with script(path, **REQUEST) as run:
        assert run.process.stderr is not None
        assert run.process.stderr.readline() == b"not yet\n"
        run.process.terminate()
        output, errors = run.rest()
    assert after_head(output).startswith(b"retry: ")
    assert errors == ""


def test_nohup_keeps_a_script_alive_when_its_terminal_goes() -> None:
    with script(CLOCK, "nohup", QUERY_STRING="interval=0.1", GATEWAY_INTERFACE="") as run:
        run.until(b"}\n\n")
        run.process.send_signal(signal.SIGHUP)
        for _ in range(3):
            run.output = b""
            run.until(b"}\n\n")


@pytest.mark.parametrize("sends", [True, False])
def test_ctrl_c_in_a_terminal_ends_a_script_quietly(tmp_path: Path, sends: bool) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, str(CLOCK if sends else tmp_path / "slow.py")])
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
    with suppress(OSError):  # Linux says EIO once nobody has the terminal open any more.
        shown += os.read(terminal, 4096)
    os.close(terminal)
    assert b"Traceback" not in shown
    assert not shown.startswith(b"Status")


def test_a_cgi_start_imports_neither_werkzeug_nor_gevent() -> None:
    answer = subprocess.run(
        [sys.executable, "-X", "importtime", CLOCK],
        env={**os.environ, **REQUEST, "SSEKIT_MAX_SECONDS": "0.2"},
        capture_output=True,
        check=True,
    )
    imported = {line.rpartition(b"|")[2].strip().decode() for line in answer.stderr.splitlines()}
    assert "ssekit.wire" in imported
    assert not {"werkzeug", "gevent", "redis", "httpx", "logging"} & imported


def test_a_star_import_gives_a_script_what_it_calls_and_starts_nothing() -> None:
    code = (
        "import sys; from ssekit.script import *; start, send, comment, return_event_data; "
        "names = 'werkzeug', 'gevent', 'ssekit.script.folder'; "
        "print(*[name for name in names if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert answer.stdout == b"\n"


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_the_life_of_a_cgi_stream_must_be_above_zero(seconds: float) -> None:
    with pytest.raises(ValueError, match="max_seconds"):
        cgi.run(Stream([]), max_seconds=seconds)


@pytest.mark.parametrize("value", ["soon", "0", "-1", "nan"])
def test_a_wrong_setting_of_the_operator_says_what_to_do(value: str) -> None:
    with script(CLOCK, **REQUEST, SSEKIT_HEARTBEAT=value) as run:
        _, errors = run.rest()
    assert "SSEKIT_HEARTBEAT must be seconds above 0" in errors
