"""The scripts that make the environment and serve, with stubs for what they would install."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ssekit.demo.room import link_key
from tests.servers import ROOT

PYTHON3 = """#!/bin/sh
case "$*" in
"-m venv --clear "*)
    echo "venv" >>$LOG
    rm -rf "$4"
    mkdir -p "$4/bin"
    cp $STUBS/pip $STUBS/python $STUBS/gunicorn "$4/bin"
    ;;
--version) echo "Python 3.x" ;;
esac
"""
STUBS = {
    "python3": PYTHON3,
    "pip": '#!/bin/sh\necho "pip $*" >>$LOG\n',
    "python": f'#!/bin/sh\nexec {sys.executable} "$@"\n',
    "gunicorn": '#!/bin/sh\necho "gunicorn $*" >>$LOG\n',
}


class Stubbed:
    """Runs scripts that find stubs first; ``log`` has what was called."""

    def __init__(self, folder: Path) -> None:
        for name, text in STUBS.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        self._log = folder / "log"
        self._env = {
            **os.environ,
            "PATH": f"{folder}:{os.environ['PATH']}",
            "STUBS": str(folder),
            "LOG": str(self._log),
            "SSEKIT_VENV": str(folder / "venv"),
            "SSEKIT_CONSTRAINTS": "",
            "SSEKIT_PYTHON": "python3",
        }

    def __call__(self, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=ROOT,
            env={**self._env, **env},
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def log(self) -> list[str]:
        return self._log.read_text().splitlines() if self._log.exists() else []


@pytest.fixture
def stubbed(tmp_path: Path) -> Stubbed:
    return Stubbed(tmp_path)


def extras(log: list[str]) -> list[str]:
    return [line.rpartition(" ")[2] for line in log]


def test_the_environment_is_made_once_and_keeps_what_each_script_needs(stubbed: Stubbed) -> None:
    for extra in ("server", "test", "server", "test"):
        assert (
            stubbed("bash", "-ec", f"source scripts/environment; environment {extra}").returncode
            == 0
        )
    assert extras(stubbed.log) == ["venv", ".[server]", ".[test]"]


def test_an_installation_that_failed_is_made_again(stubbed: Stubbed, tmp_path: Path) -> None:
    pip = tmp_path / "pip"
    pip.write_text(f"{STUBS['pip']}exit 1\n")
    make = ("bash", "-ec", "source scripts/environment; environment server")
    assert stubbed(*make).returncode == 1
    pip.write_text(STUBS["pip"])
    assert stubbed(*make).returncode == 0
    assert extras(stubbed.log) == ["venv", ".[server]"] * 2


def test_serve_says_where_and_runs_gunicorn_there(stubbed: Stubbed) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = stubbed("scripts/serve", SSEKIT_BIND=address)
        assert done.returncode == 1
        assert f"{address} is already in use" in done.stderr
        assert "Press" not in done.stderr
    env = {"SSEKIT_BIND": address, "SSEKIT_ROOM": "off"}
    done = stubbed("scripts/serve", "--workers", "2", **env)
    assert done.returncode == 0
    assert f"http://{address}/" in done.stderr
    assert stubbed.log[-1] == f"gunicorn -k gevent --bind {address} --workers 2 wsgi:app"


def test_serve_prints_the_link_that_opens_the_room(stubbed: Stubbed, tmp_path: Path) -> None:
    state = {"XDG_STATE_HOME": str(tmp_path), "SSEKIT_BIND": "127.0.0.1:0"}
    printed = [stubbed("scripts/serve", **state).stderr for _ in range(2)]
    key = link_key((tmp_path / "ssekit" / "secret").read_bytes())
    assert all(f"page      http://127.0.0.1:0/?key={key}\n" in text for text in printed)
    for room in ("open", "off"):
        assert "?key=" not in stubbed("scripts/serve", SSEKIT_ROOM=room, **state).stderr


@pytest.mark.parametrize("argument", ["--bind", "--bind=:9000", "-b", "-b:9000"])
def test_serve_takes_its_address_from_one_place(stubbed: Stubbed, argument: str) -> None:
    done = stubbed("scripts/serve", argument)
    assert done.returncode == 2
    assert "SSEKIT_BIND" in done.stderr
    assert stubbed.log == []


def test_serve_says_what_it_does_and_installs_nothing_for_that(stubbed: Stubbed) -> None:
    done = stubbed("scripts/serve", "--help")
    assert (done.returncode, stubbed.log) == (0, [])
    assert done.stdout.startswith("Serves the demo application")
    assert "SSEKIT_BIND=HOST:PORT" in done.stdout
