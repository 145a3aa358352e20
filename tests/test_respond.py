"""A script's answer that is no stream: `respond`, and what `print` may not do in its place."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from ssekit import Event
from ssekit.script import Folder
from ssekit.testing import connect
from tests.ports import free_port
from tests.servers import ROOT, Server, gunicorn, running

Logs = pytest.LogCaptureFixture
SCRIPTS = ROOT / "tests" / "apps" / "scripts"
HELLO = ROOT / "scripts" / "cgi-bin" / "hello.py"
CGI = {"GATEWAY_INTERFACE": "CGI/1.1", "REQUEST_METHOD": "GET"}
PLAIN = b"Content-Type: text/plain; charset=utf-8\r\n"


def run(path: Path, *calls: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    """Run a script as a process, as CGI unless ``env`` says otherwise."""
    query = "&".join(f"do={call}" for call in calls)
    return subprocess.run(
        [sys.executable, path],
        env={**os.environ, **CGI, "QUERY_STRING": query, "PYTHONPATH": str(ROOT), **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )


def responding(*calls: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    return run(SCRIPTS / "responding.py", *calls, **env)


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        ("ok", b"Status: 200 OK\r\n" + PLAIN + b"Content-Length: 2\r\n\r\nok"),
        (
            "bytes",
            b"Status: 200 OK\r\nContent-Type: application/octet-stream\r\n"
            b"Content-Length: 2\r\n\r\n\x00\xff",
        ),
        ("empty", b"Status: 204 No Content\r\n\r\n"),
        (
            "missing",
            b"Status: 404 Not Found\r\nX-Mine: 1\r\ncontent-type: a/b\r\n"
            b"Content-Length: 8\r\n\r\nno caf\xc3\xa9",
        ),
        ("teapot", b"Status: 599 Unknown\r\n" + PLAIN + b"Content-Length: 0\r\n\r\n"),
    ],
)
def test_a_cgi_script_responds(call: str, answer: bytes) -> None:
    done = responding(call)
    assert (done.stdout, done.stderr, done.returncode) == (answer, b"", 0)


def test_head_gets_the_headers_of_an_answer_and_no_body(tmp_path: Path) -> None:
    done = responding("ok", REQUEST_METHOD="HEAD")
    assert done.stdout == b"Status: 200 OK\r\n" + PLAIN + b"Content-Length: 2\r\n\r\n"


def test_a_script_answers_other_methods_with_respond_and_not_with_a_stream() -> None:
    done = responding("method", REQUEST_METHOD="POST")
    assert done.stdout.endswith(b"\r\n\r\nPOST")
    done = responding("send", REQUEST_METHOD="POST")
    assert done.stdout.startswith(b"Status: 405 ")


def test_a_script_in_a_terminal_prints_the_body_of_its_answer() -> None:
    assert responding("ok", GATEWAY_INTERFACE="").stdout == b"ok"


def test_what_a_script_prints_in_a_terminal_stays_in_order() -> None:
    done = responding("print", "send", "print", "send", GATEWAY_INTERFACE="")
    printed, event = b"Content-Type: text/plain\n\n", b"data: event\n\n"
    assert done.stdout == 2 * (printed + event)


@pytest.mark.parametrize(
    ("calls", "sent", "error"),
    [
        (["send", "ok"], b"data: event\n\nretry: ", "the stream has begun"),
        (["start", "ok"], b"retry: ", "the stream has begun"),
        (["ok", "ok"], b"\r\n\r\nok", "call it once"),
        (["ok", "send"], b"\r\n\r\nok", "no stream can follow"),
        (["ok", "start"], b"\r\n\r\nok", "no stream can follow"),
        (["ok", "fail"], b"\r\n\r\nok", "ZeroDivisionError"),
    ],
)
def test_a_script_answers_once(calls: list[str], sent: bytes, error: str) -> None:
    done = responding(*calls)
    assert done.stdout.count(b"Status:") == 1
    assert sent in done.stdout
    assert error in done.stderr.decode()
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("dict", "TypeError: respond() takes str or bytes, not dict"),
        ("continue", "ValueError: status must be a number from 200 to 599"),
        ("body", "ValueError: an answer with the status 204 has no body"),
        ("length", "ValueError: the header Content-Length"),
        ("lines", "ValueError: not a header"),
    ],
)
def test_what_is_no_answer_is_an_error_before_anything_is_sent(call: str, error: str) -> None:
    done = responding(call)
    assert error in done.stderr.decode()
    assert done.stdout.startswith(b"Status: 500 ")


@pytest.mark.parametrize("buffered", ["", "1"])
@pytest.mark.parametrize("calls", [["print"], ["bytes-print"], ["print", "send"]])
def test_printing_headers_in_a_cgi_script_is_an_error_that_says_so(
    calls: list[str], buffered: str
) -> None:
    done = responding(*calls, PYTHONUNBUFFERED=buffered)
    assert done.stdout.startswith(b"Status: 500 ")
    assert b"text/event-stream" not in done.stdout
    assert b"respond() any other answer" in done.stderr
    done = run(SCRIPTS / "printing.py", PYTHONUNBUFFERED=buffered)
    assert done.stdout.startswith(b"Status: 500 ")
    assert b"respond() any other answer" in done.stderr


def test_printing_in_the_middle_of_a_cgi_stream_ends_it_between_events() -> None:
    done = responding("send", "print", "send")
    assert done.stdout.count(b"data: event\n\n") == 1
    assert done.stdout.splitlines()[-1].startswith(b"retry: ")
    assert b"respond() any other answer" in done.stderr


def test_what_other_programs_print_goes_to_the_log_of_a_cgi_host() -> None:
    done = run(SCRIPTS / "calling.py")
    assert done.stdout.endswith(b"\ndata: first\n\ndata: second\n\n")
    assert done.stderr == b"from another program\n"
    assert responding("log", "ok").stderr == b"a line of the log\n"


def test_a_folder_gives_a_scripts_answer(caplog: Logs) -> None:
    folder = Folder(SCRIPTS)
    with connect(folder, "/responding.py?do=missing", headers={"Accept": "text/html"}) as answer:
        assert (answer.status, answer.read_all()) == (404, "no caf\u00e9".encode())
        assert answer.headers.items() == [
            ("X-Mine", "1"),
            ("content-type", "a/b"),
            ("Content-Length", "8"),
        ]
    with connect(folder, "/responding.py?do=send&do=ok") as answer:
        assert [event.data for event in answer] == ["event"]
    assert "the stream has begun" in caplog.text
    with connect(folder, "/responding.py?do=ok&do=ok") as answer:
        assert answer.read_all() == b"ok"
    assert "call it once" in caplog.text
    with connect(folder, "/responding.py?do=body") as answer:
        assert answer.status == 500


def test_an_answer_to_a_page_of_an_admitted_origin_can_be_read() -> None:
    folder = Folder(SCRIPTS, origins=("https://page.example",))
    headers = {"Origin": "https://page.example"}
    with connect(folder, "/responding.py?do=ok", headers=headers) as answer:
        assert answer.headers["Access-Control-Allow-Origin"] == "https://page.example"


@contextmanager
def serving(kind: str) -> Iterator[Server]:
    """A server of our scripts: `ssekit serve`, or gunicorn's workers with threads."""
    target = f"ssekit.script:Folder({str(SCRIPTS)!r})"
    if kind == "serve":
        port = free_port()
        bind = f"127.0.0.1:{port}"
        command = [sys.executable, "-m", "ssekit", "serve", str(SCRIPTS), "--bind", bind]
        with running(command, port) as server:
            yield server
    else:
        with gunicorn(target, worker=kind) as server:
            yield server


@pytest.mark.parametrize("kind", ["serve", "gthread"])
def test_a_server_sends_a_scripts_answer_to_every_method(kind: str) -> None:
    with serving(kind) as server:
        url = f"{server.url}/responding.py?do=method"
        answer = httpx.get(url)
        assert (answer.status_code, answer.content) == (200, b"GET")
        assert answer.headers["content-length"] == "3"
        assert "transfer-encoding" not in answer.headers
        assert httpx.post(url, content=b"x").content == b"POST"
        answer = httpx.head(url)
        assert (answer.headers["content-length"], answer.content) == ("4", b"")
        streaming = f"{server.url}/responding.py?do=send"
        assert httpx.head(streaming).headers["content-type"].startswith("text/event-stream")
        assert httpx.post(streaming).status_code == 405
        assert "Traceback" not in server.log


@pytest.mark.parametrize("accept", ["", "*/*", "text/html,application/xhtml+xml"])
def test_hello_says_ok_to_a_client_that_asks_for_no_stream(accept: str) -> None:
    with connect(Folder(HELLO.parent), "/hello.py", headers={"Accept": accept}) as answer:
        assert (answer.status, answer.read_all()) == (200, b"ok")
        assert answer.headers["Vary"] == "Accept"
    done = run(HELLO, HTTP_ACCEPT=accept)
    assert done.stdout.endswith(b"Content-Length: 2\r\n\r\nok")
    assert done.stderr == b""
    assert run(HELLO, GATEWAY_INTERFACE="", HTTP_ACCEPT=accept).stdout == b"ok"


def test_hello_streams_to_a_client_that_asks_for_a_stream() -> None:
    with connect(Folder(HELLO.parent), "/hello.py", timeout=10) as stream:
        assert stream.headers["Vary"] == "Accept"
        assert next(stream) == Event("hello", "message", "1")
    done = run(HELLO, HTTP_ACCEPT="text/event-stream", SSEKIT_MAX_SECONDS="3")
    assert done.stdout.count(b"\nevent: message\ndata: hello\nid: 1\n\n") == 1
    assert done.stdout.splitlines()[-1].startswith(b"retry: ")
