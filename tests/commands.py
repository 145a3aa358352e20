"""Commands as processes: ``with ssekit("listen", url) as command``, and programs of tests/apps."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tests.servers import ROOT


class Command:
    """A running command."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    @property
    def output(self) -> IO[bytes]:
        assert self.process.stdout is not None
        return self.process.stdout

    @property
    def input(self) -> IO[bytes]:
        assert self.process.stdin is not None
        return self.process.stdin

    def line(self) -> str:
        """The next line of the output, as soon as it is there."""
        return self.output.readline().decode()

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def code(self, seconds: float = 15.0) -> int:
        return self.process.wait(seconds)

    def errors(self) -> str:
        """What the command has said on standard error; call it at the end."""
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()


def _environment(env: Mapping[str, str]) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, **env}


@contextmanager
def ssekit(*arguments: str, cwd: Path = ROOT, env: Mapping[str, str] = {}) -> Iterator[Command]:
    """Start the command; it is killed at the end of the block if it still runs."""
    with subprocess.Popen(
        [sys.executable, "-m", "ssekit", *arguments],
        cwd=cwd,
        env=_environment(env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            yield Command(process)
        finally:
            process.kill()


def ran(
    *arguments: str, input: bytes = b"", cwd: Path = ROOT, env: Mapping[str, str] = {}
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "ssekit", *arguments],
        cwd=cwd,
        env=_environment(env),
        input=input,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def program(name: str, *arguments: str) -> list[str]:
    """Return the command of a file of tests/apps/programs, to be run in the project's folder."""
    return [sys.executable, "-m", f"tests.apps.programs.{name}", *arguments]


def printed(name: str, *arguments: str) -> str:
    """Run a program to its end and return what it prints; it may neither fail nor warn."""
    python, *command = program(name, *arguments)
    done = subprocess.run(
        [python, "-W", "error", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
