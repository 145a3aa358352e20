"""The examples of docs/frameworks.md, each under gunicorn as a user would run it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from tests.clients import Client
from tests.commands import program
from tests.ports import free_port
from tests.servers import ROOT, Server, gunicorn, running
from tests.waiting import until

EXAMPLES = {
    code.partition("\n")[0].removeprefix("# "): code
    for code in re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "frameworks.md").read_text(), re.DOTALL
    )
}
FRAMEWORKS = [name for name in EXAMPLES if name.endswith("_app.py")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, code in EXAMPLES.items():
        (tmp_path / name).write_text(code)
    return tmp_path


def python(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def publish(folder: Path, module: str) -> None:
    python(folder, "-c", f"import {module}; {module}.hub.publish('news', 'it works')")


def inside(server: Server) -> dict[str, int]:
    with urlopen(f"{server.url}/inside", timeout=10) as answer:
        found: dict[str, int] = json.load(answer)
        return found


def test_there_is_an_example_of_each_framework() -> None:
    assert FRAMEWORKS == ["flask_app.py", "bottle_app.py", "falcon_app.py", "pyramid_app.py"]


@pytest.mark.parametrize("file", FRAMEWORKS)
def test_a_framework_hands_the_stream_over(folder: Path, file: str) -> None:
    name = file.removesuffix(".py")
    options = ["--chdir", str(folder), "--pythonpath", str(ROOT)]
    with gunicorn("tests.apps.looked_into:app", *options, env={"APP": name}) as server:
        with ExitStack() as stack:
            clients = [
                stack.enter_context(Client(f"{server.url}/events?user=me")) for _ in range(10)
            ]
            for client in clients:
                assert client.wait(1)[0].event == "stream-open"
                assert client.headers["Content-Type"] == "text/event-stream; charset=utf-8"
            assert until(lambda: inside(server)["taken"] == 10)
            publish(folder, name)
            for client in clients:
                assert client.wait(2)[1].data == "it works"
        assert until(lambda: inside(server)["taken"] == 0)
        with Client(f"{server.url}/elsewhere") as client:
            assert client.status == 404


def test_flask_decides_before_it_hands_over(folder: Path) -> None:
    with gunicorn("flask_app:app", "--chdir", str(folder)) as server:
        with Client(f"{server.url}/events") as client:
            assert client.status == 403


@pytest.mark.parametrize("worker", ["gevent", "gthread"])
def test_fifty_streams_of_signed_in_users_hold_no_connection(folder: Path, worker: str) -> None:
    cookie = python(folder, *program("flask_session", "flask_users")[1:])
    options = ["--chdir", str(folder), "--pythonpath", str(ROOT)]
    options += ["--threads", "60"] if worker == "gthread" else []
    env = {"APP": "flask_users"}
    with gunicorn("tests.apps.looked_into:app", *options, worker=worker, env=env) as server:
        with Client(f"{server.url}/events") as client:
            assert client.status == 401
        with ExitStack() as stack:
            signed_in = {"Cookie": cookie}
            clients = [
                stack.enter_context(Client(f"{server.url}/events", headers=signed_in))
                for _ in range(50)
            ]
            for client in clients:
                assert client.wait(1)[0].event == "stream-open"
            assert until(lambda: inside(server)["lent"] == 0)
            if worker == "gevent":
                assert until(lambda: inside(server)["taken"] == 50)
            request = Request(f"{server.url}/sign-out", method="POST", headers=signed_in)
            with urlopen(request, timeout=10):
                for client in clients:
                    client.until_end()


def test_flask_run_debug_reloads_with_open_streams(folder: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "flask", "--app", "flask_app", "run", "--debug"]
    with running([*command, "--port", str(port)], port, cwd=folder) as server:
        with ExitStack() as stack:
            clients = [
                stack.enter_context(Client(f"{server.url}/events?user=me")) for _ in range(5)
            ]
            for client in clients:
                assert client.wait(1)[0].event == "stream-open"
            source = folder / "flask_app.py"
            source.write_text(source.read_text() + '\napp.add_url_rule("/new", view_func=str)\n')
            for client in clients:
                client.until_end()
        assert until(lambda: reloaded(server), 20)
        with Client(f"{server.url}/events?user=me") as client:
            assert client.wait(1)[0].event == "stream-open"
            publish(folder, "flask_app")
            assert client.wait(2)[1].data == "it works"


def reloaded(server: Server) -> bool:
    try:
        with urlopen(f"{server.url}/new", timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
