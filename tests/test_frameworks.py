"""The examples of docs/frameworks.md, each under gunicorn as a user would run it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients import Client
from tests.commands import program
from tests.servers import ROOT, gunicorn

EXAMPLES = {
    code.partition("\n")[0].removeprefix("# "): code
    for code in re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "frameworks.md").read_text(), re.DOTALL
    )
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, code in EXAMPLES.items():
        (tmp_path / name).write_text(code)
    (tmp_path / "settings.py").write_text(
        "SECRET_KEY = 'test'\n"
        "ALLOWED_HOSTS = ['*']\n"
        "ROOT_URLCONF = ()\n"
        "INSTALLED_APPS = ['django.contrib.sessions']\n"
        "SESSION_ENGINE = 'django.contrib.sessions.backends.signed_cookies'\n"
    )
    return tmp_path


def publish(folder: Path, module: str) -> None:
    subprocess.run(
        [sys.executable, "-c", f"import {module}; {module}.hub.publish('news', 'it works')"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )


@pytest.mark.parametrize("name", ["flask_app", "bottle_app", "django_app"])
def test_a_framework_hands_the_stream_over(folder: Path, name: str) -> None:
    with gunicorn(f"{name}:app", "--chdir", str(folder)) as server:
        with Client(f"{server.url}/events?user=me") as client:
            assert client.wait(1)[0].event == "stream-open"
            publish(folder, name)
            assert client.wait(2)[1].data == "it works"
        with Client(f"{server.url}/elsewhere") as client:
            assert client.status == 404


def test_flask_decides_before_it_hands_over(folder: Path) -> None:
    with gunicorn("flask_app:app", "--chdir", str(folder)) as server:
        with Client(f"{server.url}/events") as client:
            assert client.status == 403


def test_django_sessions_decide_who_may_read(folder: Path) -> None:
    env = {"DJANGO_SETTINGS_MODULE": "settings", "PYTHONPATH": f"{folder}:{ROOT}"}
    cookie = subprocess.run(
        program("django_session"),
        cwd=folder,
        env={**os.environ, **env},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    with gunicorn("django_users:events", "--chdir", str(folder)) as server:
        with Client(server.url) as client:
            assert client.status == 403
        with Client(server.url, headers={"Cookie": f"sessionid={cookie}"}) as client:
            assert client.wait(1)[0].event == "stream-open"
