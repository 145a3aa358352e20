"""The project of docs/django.md: its blocks in a folder, run as a reader would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from ssekit.browser import files
from tests.clients import Client
from tests.servers import ROOT, gunicorn

pytestmark = pytest.mark.slow

DOCS = (ROOT / "docs" / "django.md").read_text()
BLOCKS = {
    name: block
    for block, name in re.findall(r"```\w+\n((?:# |<!-- )([\w.]+)(?: -->)?\n.*?)```", DOCS, re.S)
}
BEFORE = ROOT / "tests" / "apps" / "django_docs" / "settings.py"
ENV = {"DJANGO_SETTINGS_MODULE": "settings"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that has followed the page."""
    folder = tmp_path_factory.mktemp("project")
    for name, block in BLOCKS.items():
        (folder / name).write_text(block)
    settings = BEFORE.read_text() + BLOCKS["settings.py"].replace("/var/lib/app", str(folder))
    (folder / "settings.py").write_text(settings)
    manage(folder, "migrate")
    return folder


def manage(project: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "django", *command],
        cwd=project,
        env={**os.environ, **ENV, "PYTHONPATH": f"{project}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_the_page_has_a_whole_project() -> None:
    assert list(BLOCKS) == ["settings.py", "views.py", "urls.py", "page.html", "test_news.py"]


def test_the_settings_pass_the_checks(project: Path) -> None:
    assert "no issues" in manage(project, "check")


def test_the_tests_of_the_page_pass(project: Path) -> None:
    assert "Ran 3 tests" in manage(project, "test")


def test_the_views_stream_and_the_page_begins_where_its_state_was_read(project: Path) -> None:
    with gunicorn(
        "django.core.wsgi:get_wsgi_application()", "--chdir", str(project), env=ENV
    ) as server:
        with urlopen(f"{server.url}/", timeout=20) as answer:
            page = answer.read().decode()
        position = re.search(r'last_event_id=([\w-]+)"', page)
        assert position is not None
        with Client(f"{server.url}/scores?match=1&last_event_id={position[1]}") as client:
            client.until_body(b"\n")
            assert client.status == 200
        with Client(f"{server.url}/news") as client:
            assert client.status == 302
        with Client(f"{server.url}/events") as client:
            assert client.status == 401


def test_the_script_tag_names_the_file_that_is_served(project: Path) -> None:
    with gunicorn(
        "django.core.wsgi:get_wsgi_application()", "--chdir", str(project), env=ENV
    ) as server:
        with urlopen(f"{server.url}/", timeout=20) as answer:
            page = answer.read().decode()
        address = f"/ssekit/{files.address}"
        assert f'<script type="importmap">{{"imports": {{"ssekit": "{address}"}}}}</script>' in page
        assert f'<script type="module" src="{address}" integrity="{files.integrity}">' in page
        with urlopen(server.url + address, timeout=20) as answer:
            assert b"export class Stream" in answer.read()
            assert "immutable" in answer.headers["Cache-Control"]
            assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
        asked = Request(f"{server.url}/ssekit/ssekit.js", headers={"If-None-Match": "*"})
        with Client(asked.full_url, headers={"If-None-Match": "*"}) as client:
            assert client.status == 304
        with Client(f"{server.url}/ssekit/other.js") as client:
            assert client.status == 404
