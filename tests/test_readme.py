"""The README cannot drift: its examples run, and its commands and links exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import metadata
from itertools import islice
from pathlib import Path

import pytest

from ssekit import host
from ssekit.hub import lagging
from tests.clients import Client
from tests.documents import files_of
from tests.ports import free_port
from tests.screenshots import PICTURES
from tests.servers import ROOT, gunicorn, running

pytestmark = pytest.mark.slow

README = (ROOT / "README.md").read_text()
EXAMPLES = files_of(README)
ENV = {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, code in EXAMPLES.items():
        (tmp_path / name).write_text(code)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_are_five_examples_on_less_than_two_screens() -> None:
    assert list(EXAMPLES) == [
        "clock.py",
        "news.py",
        "clock_script.py",
        "flask_app.py",
        "test_clock.py",
    ]
    assert len(README.splitlines()) <= 120
    clock = EXAMPLES["clock.py"].partition("\n\n")[2]
    assert len(clock.splitlines()) <= 5


def test_the_three_commands_are_all_that_the_clock_needs(folder: Path) -> None:
    block = re.search(r"```sh\n(.*?)```", README, re.DOTALL)
    assert block
    install, serve, curl = block[1].splitlines()
    package, _, extra = install.removeprefix("pip install '").removesuffix("]'").partition("[")
    needs = metadata(package).get_all("Requires-Dist") or []
    # gunicorn's own extra: without it the gevent worker lacks the package `packaging`.
    own = [need for need in needs if re.search(rf"extra == ['\"]{extra}['\"]", need)]
    assert any(need.startswith("gunicorn[gevent]") for need in own)
    port = free_port()
    # Nothing of this repository: no wsgi.py, no gunicorn.conf.py, and not the package's folder.
    program = [str(Path(sys.executable).parent / "gunicorn"), *shlex.split(serve)[1:]]
    assert serve.startswith("gunicorn ")
    env = {"GUNICORN_CMD_ARGS": f"--bind 127.0.0.1:{port}"}
    with running(program, port, env=env, cwd=folder):
        command = shlex.split(curl.replace(":8000", f":{port}"))
        with subprocess.Popen([*command, "--silent"], stdout=subprocess.PIPE) as client:
            assert client.stdout is not None
            lines = (line.decode() for line in client.stdout)
            first, second = islice((line for line in lines if line.startswith("data: ")), 2)
            client.terminate()
    assert '{"now":"' in first
    assert first != second


def test_the_script_prints_its_stream(folder: Path) -> None:
    command = [sys.executable, "clock_script.py"]
    with subprocess.Popen(command, cwd=folder, env=ENV, stdout=subprocess.PIPE) as script:
        assert script.stdout is not None
        assert script.stdout.readline().startswith(b'data: {"now":"')
        script.terminate()


def test_the_hub_carries_an_event_from_another_process(folder: Path) -> None:
    with gunicorn("news:app", "--chdir", str(folder)) as server, Client(server.url) as client:
        assert client.wait(1)[0].event == "stream-open"
        code = "import news; print(news.announce('It works'))"
        published = subprocess.run(
            [sys.executable, "-c", code], cwd=folder, env=ENV, capture_output=True, check=True
        )
        event = client.wait(2)[1]
        assert (event.data, event.id) == (
            '{"headline":"It works"}',
            published.stdout.decode().strip(),
        )


def test_the_flask_view_streams(folder: Path) -> None:
    with gunicorn("flask_app:app", "--chdir", str(folder)) as server:
        with Client(f"{server.url}/events") as client:
            assert client.wait(1)[0].event == "stream-open"
            code = "import flask_app; flask_app.hub.publish('sport', 'goal')"
            subprocess.run([sys.executable, "-c", code], cwd=folder, env=ENV, check=True)
            assert client.wait(2)[1].data == "goal"


def test_the_test_passes(folder: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_clock.py"]
    done = subprocess.run(command, cwd=folder, env=ENV, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode()


def test_every_logger_is_documented_and_no_other() -> None:
    code = "".join(path.read_text() for path in (ROOT / "ssekit").rglob("*.py"))
    named = set(re.findall(r'Logger\("(ssekit[\w.]*)"\)', code)) | {"ssekit.client"}
    table = (ROOT / "docs" / "operations.md").read_text().partition("## Logs")[2]
    assert set(re.findall(r"^\| `(ssekit[\w.]*)` \|", table, re.MULTILINE)) == named


@pytest.mark.parametrize("reason", [host.DISCONNECTED, host.ENDING, host.EXPIRED, lagging.SLOW])
def test_the_reasons_for_which_streams_end_are_documented(reason: str) -> None:
    assert f"`{reason}`" in (ROOT / "docs" / "operations.md").read_text()


def test_each_screenshot_is_made_by_the_script_and_shown_on_a_page() -> None:
    made = {path.stem for path in (ROOT / "docs" / "pictures").glob("*.png")}
    assert made == set(PICTURES)
    pages = "".join(path.read_text() for path in (ROOT / "docs").rglob("*.md"))
    assert set(re.findall(r"pictures/(\w+)\.png\)", pages)) == made


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "CONTRIBUTING.md",
        *sorted(str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")),
    ],
)
def test_links_and_commands_exist(page: str) -> None:
    path = ROOT / page if (ROOT / page).exists() else ROOT / "docs" / page
    text = path.read_text() if path.suffix == ".md" else ""
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if "://" not in link:
            assert (path.parent / link).exists(), f"{page} links to {link}"
    for command in re.findall(r"\bscripts/([a-z-]+)", text):
        assert (ROOT / "scripts" / command).exists(), f"{page} names scripts/{command}"
    for command in re.findall(r"`ssekit ([a-z]+)", text):
        done = subprocess.run(
            [sys.executable, "-m", "ssekit", command, "--help"],
            cwd=ROOT,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, f"{page} names ssekit {command}"
