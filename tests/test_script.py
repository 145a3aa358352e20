"""A folder of scripts as a WSGI application, without a server: each run's own, and its answers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from flask import Flask

from ssekit import Decoder, Event, host, script
from ssekit.script import Folder, Script
from ssekit.testing import connect
from tests.servers import ROOT

SCRIPTS = ROOT / "tests" / "apps" / "scripts"
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
def test_a_header_that_a_script_may_not_set_is_an_error_in_the_script(
    tmp_path: Path, header: tuple[str, str], caplog: Logs
) -> None:
    text = f"from ssekit.script import *; start(headers=[{header!r}])"
    with connect(written(tmp_path, text), "/script.py") as stream:
        assert stream.status == 500
    assert "header" in caplog.text
    path = f"/refused_header.py?{urlencode([header])}"
    with connect(Folder(SCRIPTS), path) as stream:
        assert next(stream).data == "refused"


def test_a_script_is_compiled_as_the_interpreter_would() -> None:
    with connect(Folder(SCRIPTS), "/annotated.py") as stream:
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
def test_the_clock_survives_a_wrong_interval(interval: str) -> None:
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


def test_a_thread_of_a_script_sends_in_the_same_stream() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPTS / "threaded.py"],
        env={**os.environ, "GATEWAY_INTERFACE": "CGI/1.1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
    )
    assert done.stdout.count(b"Status:") == 1
    assert done.stdout.endswith(b"\ndata: first\n\ndata: from a thread\n\n")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_without_a_client_sends_nothing(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with connect(Folder(SCRIPTS), "/threaded.py") as stream:
        assert [event.data for event in stream] == ["first"]
    assert capfd.readouterr().out == ""
    with connect(Folder(SCRIPTS), "/threaded_in_its_context.py") as stream:
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


@pytest.mark.parametrize(
    "name",
    [
        "a" * 300 + ".py",
        "a" * 5000 + ".py",
        "%00.py",
        "a%00.py",
        "%ff%fe.py",
        "%ed%a0%80.py",
        "..%2fscript.py",
        "%2e%2e/script.py",
        ".py",
        "",
        "script.py/",
        "script.py%00",
        "folder.py",
    ],
)
def test_a_name_that_is_no_script_is_not_found(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.py").mkdir()
    with connect(written(tmp_path, "1 / 0"), f"/{name}") as answer:
        assert answer.status == 404


def test_a_path_that_no_server_would_show_is_not_found(tmp_path: Path) -> None:
    folder = written(tmp_path, "1 / 0")
    statuses: list[str] = []

    def start_response(status: str, headers: object) -> None:
        statuses.append(status)

    for path in ("/\u5ba4.py", "/\ud800.py", "/\0.py"):
        folder({"PATH_INFO": path, "REQUEST_METHOD": "GET"}, start_response)
    assert statuses == 3 * ["404 Not Found"]


def test_a_script_may_have_a_name_beyond_ascii(tmp_path: Path) -> None:
    folder = written(tmp_path, "from ssekit.script import send; send('x')", "\u5ba4 caf\u00e9.py")
    with connect(folder, "/\u5ba4%20caf%C3%A9.py") as stream:
        assert next(stream).data == "x"


def test_a_link_counts_as_what_it_leads_to(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for folder, name in [
        (inside, "_hidden.py"),
        (inside, ".hidden.py"),
        (inside, "data.txt"),
        (inside, "shown.py"),
        (outside, "other.py"),
    ]:
        folder.mkdir(exist_ok=True)
        (folder / name).write_text("from ssekit.script import respond; respond(__file__)")
    targets = ["_hidden.py", ".hidden.py", "data.txt", "shown.py", "../outside/other.py", "loop.py"]
    links = dict(zip("abcde", targets, strict=False)) | {"loop": "loop.py"}
    for name, target in links.items():
        (inside / f"{name}.py").symlink_to(target)
    app = Folder(inside)
    statuses = {}
    for name in links:
        with connect(app, f"/{name}.py") as answer:
            statuses[name] = answer.status
    assert statuses == {"a": 404, "b": 404, "c": 404, "d": 200, "e": 404, "loop": 404}


def test_a_link_that_is_changed_leads_to_the_new_script(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / f"{name}.py").write_text(
            f"from ssekit.script import respond; respond('{name}')"
        )
    app, link = Folder(tmp_path), tmp_path / "current.py"
    bodies = []
    for name in ("first", "second"):
        link.unlink(missing_ok=True)
        link.symlink_to(f"{name}.py")
        with connect(app, "/current.py") as answer:
            bodies.append(answer.read_all())
    assert bodies == [b"first", b"second"]


def retries(app: Folder, count: int = 20) -> set[int]:
    """The first lines of some streams, as milliseconds."""
    found = set()
    for _ in range(count):
        with connect(app, "/script.py") as stream:
            name, value = stream.read().split(b": ")
            assert name == b"retry"
            found.add(int(value))
    return found


def test_each_client_is_told_another_time_to_come_back(tmp_path: Path) -> None:
    folder = written(tmp_path, "from ssekit.script import send; send('x')")
    found = retries(folder)
    assert len(found) > 5
    assert 2000 <= min(found) < max(found) <= 4000


def test_a_folder_says_when_its_clients_come_back(tmp_path: Path) -> None:
    written(tmp_path, "from ssekit.script import send; send('x'); 1 / 0")
    folder = Folder(tmp_path, retry=10_000)
    assert retries(folder, 3) == {10_000}
    with connect(folder, "/script.py") as stream:
        closing = int(stream.read_all().split(b"retry: ")[-1])
        assert 5000 <= closing <= 15_000


@pytest.mark.parametrize("options", [{"retry": -1}, {"retry": 1.5}, {"origins": "a"}])
def test_a_wrong_option_is_an_error_when_the_folder_is_made(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    with pytest.raises((ValueError, TypeError)):
        Folder(tmp_path, **options)


def test_a_run_of_a_script_is_the_clients_own(tmp_path: Path) -> None:
    """A `Stream` and a script share what is current: code outside both has no run."""
    text = "from ssekit import host, script; script.send(host.current().run is not None)"
    with connect(written(tmp_path, text), "/script.py") as stream:
        assert next(stream).data == "true"
    assert host.current().run is None
