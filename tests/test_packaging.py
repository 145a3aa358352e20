"""What a user installs: the wheel has all that is needed, and says what it is."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from importlib.metadata import metadata
from pathlib import Path

import pytest

from tests.clients import Client
from tests.components import need
from tests.ports import free_port
from tests.servers import ROOT, running


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # A copy: a build leaves its own files beside what it builds.
    checkout = folder / "checkout"
    ignored = shutil.ignore_patterns(".*", "node_modules", "build", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, checkout, ignore=ignored)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", folder, checkout], check=True, capture_output=True)
    (made,) = folder.glob("ssekit-*.whl")
    return made


def test_the_wheel_has_every_file_of_the_package_and_no_other(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "ssekit").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert "ssekit/py.typed" in names


def test_an_installed_wheel_works(wheel: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*command, "--target", tmp_path / "site", wheel], check=True)
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    for code, said in (
        ("import ssekit; print(ssekit.__file__)", str(tmp_path / "site")),
        ("import ssekit.demo.app; print(ssekit.demo.app.create())", "ssekit.demo.app"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            check=True,
        )
        assert said in done.stdout
    done = subprocess.run(
        [tmp_path / "site" / "bin" / "ssekit", "--version"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("ssekit 0.")


# What is released.


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("released")
    release(ROOT, folder)
    return folder


def release(checkout: Path, folder: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("needs a checkout of git")
    env = {**os.environ, "SSEKIT_VENV": sys.prefix}
    command = [checkout / "scripts" / "release", folder]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.ci
@pytest.mark.timeout(180)
def test_a_release_passes_its_checks_and_is_the_same_wherever_it_is_built(
    released: Path, tmp_path: Path
) -> None:
    # Another folder, with other times and modes of the files.
    other = tmp_path / "checkout"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    for name in tracked.stdout.decode().split("\0")[:-1]:
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        (other / name).write_bytes((ROOT / name).read_bytes())
        (other / name).chmod((ROOT / name).stat().st_mode & 0o100 | 0o600)
    git = ROOT / ".git"
    (other / ".git").write_text(git.read_text() if git.is_file() else f"gitdir: {git}\n")
    release(other, tmp_path / "released")
    names = sorted(path.name for path in released.iterdir())
    assert [name.partition("-")[0] for name in names] == ["ssekit", "ssekit"]
    for name in names:
        assert sha256(released / name) == sha256(tmp_path / "released" / name), name


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


EXTRAS = {
    "": "from ssekit import Hub; from ssekit.testing import connect; "
    "next(connect(Hub().stream('a')).__enter__())",
    "access": "from ssekit.access import Tickets; Tickets('s' * 32).issue('news')",
    "client": "import ssekit.client, httpx",
    "django": "import django, ssekit.django",
    "metrics": "from ssekit import Hub; from ssekit.metrics import Metrics; Metrics(Hub())",
    "postgresql": "from ssekit import Hub; Hub('postgresql://localhost/x')",
    "redis": "from ssekit import Hub; Hub('redis://localhost/0')",
    "server": "import gevent.monkey; gevent.monkey.patch_all(); import ssekit.gunicorn.worker",
    "top": "import ssekit.cli.top, rich.live",
}


@pytest.mark.ci
@pytest.mark.timeout(180)
@pytest.mark.parametrize("extra", EXTRAS)
def test_the_wheel_works_in_a_clean_environment_with_one_extra(
    wheel: Path, tmp_path: Path, extra: str
) -> None:
    python = environment(tmp_path / "venv", f"{wheel}[{extra}]" if extra else str(wheel))
    code = EXTRAS[extra]
    subprocess.run([python, "-I", "-W", "error", "-c", code], cwd=tmp_path, check=True)


def test_every_extra_is_tried() -> None:
    extras = set(metadata("ssekit").get_all("Provides-Extra") or [])
    assert extras - {"bench", "docs", "test"} == set(EXTRAS) - {""}


def environment(folder: Path, *packages: str) -> Path:
    """A new environment with these packages; its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", *packages]
    subprocess.run(command, check=True)
    return python


# What a user's type checker finds, with the wheel that is installed.


@pytest.fixture(scope="module")
def project(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    environment(folder / "venv", f"{wheel}[access]")
    for name in ("uses.py", "misuses.py"):
        shutil.copy(ROOT / "tests" / "apps" / "typed" / name, folder)
    return folder


def wrong_lines(project: Path) -> set[int]:
    lines = (project / "misuses.py").read_text().splitlines()
    return {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}


def checked(command: list[str | Path], project: Path) -> tuple[int, str]:
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.ci
@pytest.mark.timeout(180)
def test_mypy_understands_the_public_names(project: Path) -> None:
    python = project / "venv" / "bin" / "python"
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", python]
    assert checked([*mypy, "uses.py"], project)[0] == 0, checked([*mypy, "uses.py"], project)[1]
    _, said = checked([*mypy, "misuses.py"], project)
    assert {int(n) for n in re.findall(r"misuses.py:(\d+): error", said)} == wrong_lines(project)


@pytest.mark.ci
@pytest.mark.timeout(180)
def test_pyright_understands_the_public_names(project: Path) -> None:
    python = project / "venv" / "bin" / "python"
    need("npm")  # by which the package fetches pyright itself
    pyright: list[str | Path] = [sys.executable, "-m", "pyright", "--pythonpath", python]
    code, said = checked([*pyright, "uses.py"], project)
    assert code == 0, said
    _, said = checked([*pyright, "misuses.py"], project)
    assert {int(n) for n in re.findall(r"misuses.py:(\d+):\d+ - error", said)} == wrong_lines(
        project
    )


# The container.


def test_the_containers_command_serves_and_keeps_its_log_in_the_volume(
    tmp_path: Path,
) -> None:
    text = (ROOT / "examples" / "container" / "Dockerfile").read_text()
    text = re.sub(r" *\\\n *", " ", text)
    for source in re.findall(r"^COPY (?!--from)(\S+) ", text, re.MULTILINE):
        assert (ROOT / source).exists(), f"the Dockerfile copies {source}"
    command = json.loads(re.search(r"^CMD (\[.*\])$", text, re.MULTILINE)[1])  # type: ignore[index]
    port = free_port()
    gunicorn, *options = (part.replace("0.0.0.0:8000", f"127.0.0.1:{port}") for part in command)
    assert gunicorn == "/opt/app/bin/gunicorn"
    environment = dict(re.findall(r"(\w+)=(\S+)", re.search(r"^ENV (.*)$", text, re.MULTILINE)[1]))  # type: ignore[index]
    environment = {
        name: value.replace("/var/lib/ssekit", str(tmp_path)) for name, value in environment.items()
    }
    [user] = re.findall(r"^USER (\d+):\1$", text, re.MULTILINE)
    program = [*contained(user, tmp_path), sys.executable, "-m", "gunicorn", *options]
    with running(program, port, env=environment) as server:
        # The first one waits until a worker has begun.
        with Client(f"{server.url}/clock?interval=0.1", timeout=30) as client:
            assert client.wait(2)
        with Client(f"{server.url}/events?channel=news", timeout=30) as client:
            assert client.wait(1)
        (master,) = server.children() if len(program) > len(options) + 3 else [server.process.pid]
        os.kill(master, signal.SIGTERM)
        assert server.process.wait(20) == 0, server.log
    assert (tmp_path / "hub.db").exists()


def contained(user: str, volume: Path) -> list[str]:
    """What runs a command as that user of its own, with nothing to write to but its volume.

    Without bubblewrap, or where it may not make such a place, the command runs as it is.
    """
    command = ["bwrap", "--unshare-user", "--uid", user, "--gid", user, "--ro-bind", "/", "/"]
    command += ["--dev", "/dev", "--tmpfs", "/tmp", "--bind", str(volume), str(volume)]
    command += ["--die-with-parent", "--chdir", str(ROOT)]
    if shutil.which("bwrap") is None or subprocess.run([*command, "true"], check=False).returncode:
        return []
    return command
