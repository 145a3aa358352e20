"""docs/coming-from.md: what it says is the same here does the same."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import jwt
import pytest

from ssekit.testing import connect
from tests.clients import Client
from tests.documents import files_of, module
from tests.servers import ROOT, gunicorn

pytestmark = pytest.mark.ci

DOCS = (ROOT / "docs" / "coming-from.md").read_text()
HERE = files_of(DOCS, "# here: ")
THERE = re.findall(r"```py\n(.*?)```", DOCS, re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, code in HERE.items():
        (tmp_path / name).write_text(code)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_block_has_a_name_that_a_test_here_runs() -> None:
    text = Path(__file__).read_text()
    names = [name.removesuffix(".py") for name in HERE]
    assert [name for name in names if f'"{name}"' not in text and f'"{name}.py"' not in text] == []
    for code in THERE:
        ast.parse(code)


def test_the_loop_of_php_counts(folder: Path) -> None:
    command = [sys.executable, str(folder / "count.py")]
    env = {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as script:
        assert script.stdout is not None
        lines = [script.stdout.readline() for _ in range(5)]
        script.terminate()
    assert lines[:4] == [b'data: {"n":1}\n', b"id: 1\n", b"\n", b'data: {"n":2}\n']


def test_the_timer_of_workerman_greets_a_stream_and_answers_others(folder: Path) -> None:
    with module(folder, "greeting") as greeting:
        accept = [("Accept", "text/event-stream")]
        with connect(greeting.app, headers=accept) as stream:
            assert (next(stream).event, stream.status) == ("greeting", 200)
        with connect(greeting.app, headers=[("Accept", "text/html")]) as answer:
            assert answer.read_all() == b"ok\n"


def test_what_flask_sse_publishes_arrives(folder: Path) -> None:
    with module(folder, "hello") as hello, connect(hello.app, "/stream") as stream:
        assert next(stream).event == "stream-open"
        assert hello.app.test_client().post("/hello").status_code == 204
        event = next(stream)
        assert (event.event, event.data) == ("greeting", '{"text":"Hello"}')


def test_what_django_eventstream_sends_arrives(folder: Path) -> None:
    assert "urls.py" in HERE
    settings = (ROOT / "tests" / "apps" / "django_docs" / "settings.py").read_text()
    settings += 'INSTALLED_APPS += ["ssekit.django"]\nSSEKIT = {"URL": "sqlite:///hub.db"}\n'
    (folder / "settings.py").write_text(settings)
    app = "django.core.wsgi:get_wsgi_application()"
    env = {"DJANGO_SETTINGS_MODULE": "settings"}
    publish = [
        sys.executable,
        "-m",
        "django",
        "shell",
        "-c",
        "import urls; urls.announce('It works')",
    ]
    paths = {**os.environ, **env, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    with gunicorn(app, "--chdir", str(folder), env=env) as server:
        with Client(f"{server.url}/events/") as client:
            assert client.wait(1)[0].event == "stream-open"
            subprocess.run(publish, env=paths, capture_output=True, check=True)
            assert client.wait(2)[1].event == "headline"


def test_the_generator_of_sse_starlette_goes_on_after_the_last_id(folder: Path) -> None:
    with module(folder, "numbers_app") as numbers:
        with connect(numbers.app, last_event_id="41") as stream:
            assert [next(stream).id for _ in range(2)] == ["42", "43"]


def test_a_token_reads_the_topics_of_mercure_that_it_names(folder: Path) -> None:
    with module(folder, "books") as books:
        claims = {"channels": ["books/*"], "iat": time.time(), "exp": time.time() + 60}
        token = jwt.encode(claims, b"a secret of at least 32 bytes ...", algorithm="HS256")
        header = [("Authorization", f"Bearer {token}")]
        with connect(books.app, "/?channel=books/1", headers=header) as stream:
            assert next(stream).event == "stream-open"
            books.sold(1, 3)
            assert json.loads(next(stream).data) == {"stock": 3}
        with connect(books.app, "/?channel=films/1", headers=header) as stream:
            assert stream.status == 403


def test_the_channels_of_nchan_are_read_by_name(folder: Path) -> None:
    with module(folder, "channels") as channels:
        with connect(channels.app, "/?channel=public.a") as stream:
            assert next(stream).event == "stream-open"
            channels.publish("b", "not this")
            channels.publish("a", "this")
            assert next(stream).data == "this"


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("rates", [("EURUSD", 1.08), ("EURUSD", 1.09)]),
        ("stock", [("tea", 3), ("tea", 2)]),
    ],
)
def test_the_newest_value_of_each_key_is_there_at_once(
    folder: Path, name: str, changes: list[tuple[str, float]]
) -> None:
    with module(folder, name) as found:
        for change in changes:
            (found.changed if name == "rates" else found.sold)(*change)
        path = "/" if name == "rates" else "/events"
        with connect(found.app, path) as stream:
            assert changes[-1][1] in json.loads(next(stream).data).values()
            assert next(stream).event == "stream-open"
