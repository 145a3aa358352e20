"""A folder of scripts as a WSGI application, without a server: each run's own, and its answers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from flask import Flask

from ssekit import Decoder, Event, script
from ssekit.script import Folder, Script
from ssekit.testing import connect
from tests.servers import ROOT

Logs = pytest.LogCaptureFixture


@pytest.fixture(autouse=True)
def _own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a script adds to the process's path is gone with the test."""
    monkeypatch.setattr(sys, "path", list(sys.path))


def written(folder: Path, text: str, name: str = "script.py") -> Folder:
    (folder / name).write_text(text)
    return Folder(folder)


@pytest.mark.parametrize(
    "headers",
    [
        '{"X-Mine": "1", "cache-control": "no-store"}',
        '[("X-Mine", "1"), ("cache-control", "no-store")]',
    ],
)
def test_a_script_may_start_with_headers_that_join_or_replace_ours(
    tmp_path: Path, headers: str
) -> None:
    text = f"from ssekit.script import *; start(headers={headers}); start(); send('x')"
    with connect(written(tmp_path, text), "/script.py") as stream:
        assert next(stream).data == "x"
        assert stream.headers.get_all("X-Mine") == ["1"]
        assert stream.headers.get_all("Cache-Control") == ["no-store"]
        assert stream.headers["X-Accel-Buffering"] == "no"


@pytest.mark.parametrize("header", [("Connection", "close"), ("X", "a\r\nSet-Cookie: b")])
def test_a_header_that_is_not_a_scripts_to_set_is_an_error_in_the_script(
    tmp_path: Path, header: tuple[str, str], caplog: Logs
) -> None:
    text = f"from ssekit.script import *; start(headers=[{header!r}])"
    with connect(written(tmp_path, text), "/script.py") as stream:
        assert stream.status == 500
    assert "header" in caplog.text
    text = f"""
from ssekit.script import *
try:
    start(headers=[{header!r}])
except ValueError:
    send("refused")
"""
    with connect(written(tmp_path, text), "/script.py") as stream:
        assert next(stream).data == "refused"


def test_a_script_is_compiled_as_the_interpreter_would(tmp_path: Path) -> None:
    text = """
from ssekit.script import send
def function(number: int): ...
send(str(function.__annotations__["number"]))
"""
    with connect(written(tmp_path, text), "/script.py") as stream:
        assert next(stream).data == "<class 'int'>"


def test_a_script_finds_the_modules_beside_it(tmp_path: Path) -> None:
    (tmp_path / "_beside_the_script.py").write_text("WORD = 'found'")
    text = "from ssekit.script import send; from _beside_the_script import WORD; send(WORD)"
    with connect(written(tmp_path, text), "/script.py") as stream:
        assert next(stream).data == "found"
    with connect(written(tmp_path, ""), "/_beside_the_script.py") as stream:
        assert stream.status == 404


def test_the_runs_of_our_scripts_do_not_lengthen_the_process_path() -> None:
    folder = Folder(ROOT / "scripts" / "cgi-bin")
    lengths = []
    for path in 3 * ["/clock.py", "/count.py"]:
        with connect(folder, path) as stream:
            next(stream)
        lengths.append(len(sys.path))
    assert lengths[2:] == 4 * lengths[1:2]


@pytest.mark.parametrize("interval", ["soon", "nan", "", "-1", "1e999"])
def test_our_clock_takes_no_harm_from_a_wrong_interval(interval: str) -> None:
    with connect(Script(ROOT / "scripts/cgi-bin/clock.py"), f"/?interval={interval}") as stream:
        assert "Welcome" in next(stream).data


def test_a_page_of_an_admitted_origin_can_read_every_answer(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("1 / 0")
    (tmp_path / "wrong.py").write_text("def this is not Python")
    app = Folder(tmp_path, origins=("https://page.example",))
    for path, status in [("/missing.py", 404), ("/broken.py", 500), ("/wrong.py", 500)]:
        with connect(app, path, headers={"Origin": "https://page.example"}) as answer:
            assert answer.status == status
            assert answer.headers["Access-Control-Allow-Origin"] == "https://page.example"
        with connect(app, path, headers={"Origin": "https://evil.example"}) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] is None


def test_the_script_of_the_documentation_runs_everywhere(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "scripts.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    expected = Event('{"number":42}', "message", "42")
    with connect(written(tmp_path, code), "/script.py", last_event_id="41") as stream:
        assert next(stream) == expected
    request = {"GATEWAY_INTERFACE": "CGI/1.1", "HTTP_LAST_EVENT_ID": "41"}
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"],
        env={**os.environ, **request, "PYTHONPATH": str(ROOT), "SSEKIT_MAX_SECONDS": "0.2"},
        capture_output=True,
        check=True,
    )
    assert Decoder().feed(done.stdout.partition(b"\r\n\r\n")[2])[:1] == [expected]
    assert set(script.__all__) <= set(re.findall(r"^\| `([a-z_]+)\(", text, re.MULTILINE))


THREADED = """
import threading
from ssekit.script import send

def say(): send("from a thread")

send("first")
thread = threading.Thread(target=say)
thread.start()
thread.join()
"""


def test_a_thread_of_a_script_sends_in_the_same_stream(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(THREADED)
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"],
        env={**os.environ, "GATEWAY_INTERFACE": "CGI/1.1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
    )
    assert done.stdout.count(b"Status:") == 1
    assert done.stdout.endswith(b"\ndata: first\n\ndata: from a thread\n\n")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_belongs_to_no_client_sends_to_nobody(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with connect(written(tmp_path, THREADED), "/script.py") as stream:
        assert [event.data for event in stream] == ["first"]
    assert capfd.readouterr().out == ""
    inherits = THREADED.replace("target=say", "target=contextvars.copy_context().run, args=(say,)")
    with connect(written(tmp_path, f"import contextvars{inherits}"), "/script.py") as stream:
        assert [event.data for event in stream] == ["first", "from a thread"]


def test_a_script_may_end_itself(tmp_path: Path, caplog: Logs) -> None:
    app = written(tmp_path, "import sys; from ssekit.script import send; send('x'); sys.exit(1)")
    with connect(app, "/script.py") as stream:
        assert list(stream) == [Event("x", "message", "")]
    assert not caplog.records


def test_a_framework_that_keeps_what_a_script_sends_is_an_error(
    tmp_path: Path, caplog: Logs
) -> None:
    app = Flask(__name__)
    folder = written(tmp_path, "from ssekit.script import send; send('x')")
    app.add_url_rule("/script.py", view_func=lambda: folder)
    with connect(app, "/script.py") as answer:
        assert answer.status == 500
    assert "DispatcherMiddleware" in caplog.text
