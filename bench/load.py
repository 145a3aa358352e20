"""The two C programs of the bench: compiled when their source is newer, and the load spoken to.

`Load` knows the commands of ``load.c`` and nothing of the servers that it loads.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.processes import BenchError, find_program, running

FOLDER = Path(__file__).resolve().parent


def compiled(name: str) -> str:
    """Return the path of the program that ``bench/NAME.c`` makes; compile it if need be.

    Raises BenchError without a C compiler, or where it fails.
    """
    source, program = FOLDER / f"{name}.c", FOLDER / "build" / name
    if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
        return str(program)
    compiler = find_program("cc")
    if not compiler:
        raise BenchError("the bench needs a C compiler (on Debian: apt-get install gcc libc6-dev)")
    program.parent.mkdir(exist_ok=True)
    made = program.with_suffix(f".{os.getpid()}")  # another run may compile it as well
    command = [compiler, "-O2", "-Wall", "-Wextra", "-o", str(made), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"{shlex.join(command)} failed:\n{done.stderr}")
    made.replace(program)
    return str(program)


class Load:
    """The clients: opens, pauses and closes streams by the group, and says what arrived."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid

    def ask(self, command: str) -> Any:
        """Give a command and return its answer."""
        self.tell(command)
        return self.answer()

    def tell(self, command: str) -> None:
        """Give a command; `answer` returns what it says at its end."""
        assert self._process.stdin
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """Return the answer of the command that was told last."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise BenchError(f"the load ended with {self._process.wait()}")
        return json.loads(line)

    def open(self, count: int, port: int, path: str, *, group: int = 0, flags: str = "-") -> float:
        """Open streams and return the seconds that it took; raises BenchError if some failed."""
        answer = self.ask(f"open {group} {count} {port} {flags} {path}")
        if answer["failed"] or answer["opened"] != count:
            raise BenchError(f"of {count} streams of {path} {answer['opened']} opened")
        return float(answer["seconds"])

    def reset(self) -> None:
        """Forget what was counted."""
        self.ask("reset")

    def report(self, group: int = 0) -> dict[str, Any]:
        """Return what a group has counted."""
        return self.ask("report").get(str(group), {})  # type: ignore[no-any-return]

    def wait(self, events: int, seconds: float, group: int = 0) -> dict[str, Any]:
        """Wait until every client of the group has so many events, and return what it counted."""
        return self.ask(f"wait {group} {events} {seconds}").get(str(group), {})  # type: ignore[no-any-return]

    def do(self, what: str, group: int) -> None:
        """Do to a group what one of pause, continue, shut and again says."""
        self.ask(f"{what} {group}")


@contextmanager
def clients(core: int) -> Iterator[Load]:
    """Run the load on a core until the block ends."""
    with running([compiled("load")], core, stdout=subprocess.PIPE) as process:
        yield Load(process)
