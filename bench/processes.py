"""Processes of a bench: started on one core, watched through /proc, ended without fail.

It knows the kernel's files and clocks and nothing of what it starts.  What it starts also ends
when the bench is killed (setpriv and taskset are of util-linux).
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TypeVar

ROOT = Path(__file__).resolve().parent.parent
T = TypeVar("T")


class BenchError(Exception):
    """A part of the bench did not do what it should; the text says which."""


def raise_descriptor_limit() -> int:
    """Let this process and its children open as many descriptors as the system allows."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def find_program(name: str) -> str | None:
    """Return a program's path, also from where Debian keeps the administrator's."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")


def until(condition: Callable[[], T], seconds: float, what: str) -> T:
    """Return the first true value of ``condition``; raises BenchError after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise BenchError(f"waited {seconds:g} s for {what}")
        time.sleep(0.01)
    return value


@contextmanager
def running(
    command: Sequence[str],
    core: int,
    *,
    env: Mapping[str, str] = {},
    cwd: Path = ROOT,
    log: Path | None = None,
    stdout: int | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """Run a command on a core until the block ends; its standard input stays open until then."""
    # Both replace themselves by the command, which keeps the core and goes when the bench goes.
    settled = ["setpriv", "--pdeathsig", "KILL", "taskset", "--cpu-list", str(core), *command]
    output: IO[bytes] | int = log.open("ab") if log else subprocess.DEVNULL
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    process = subprocess.Popen(
        settled,
        stdin=subprocess.PIPE,
        stdout=output if stdout is None else stdout,
        stderr=output,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path, **env},
        text=True,
    )
    try:
        yield process
    finally:
        _end(process)
        if not isinstance(output, int):
            output.close()


def _end(process: subprocess.Popen[str]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream:
            stream.close()
    started = children(process.pid) if process.poll() is None else []
    # On SIGINT gunicorn and nginx quit at once, without waiting for streams.
    for number in (signal.SIGINT, signal.SIGKILL):
        if process.poll() is None:
            process.send_signal(number)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            continue
        break
    for child in started:
        with suppress(ProcessLookupError):  # It has gone, as it should have.
            os.kill(child, signal.SIGKILL)


def children(pid: int) -> list[int]:
    """Return the process's children."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def processor_seconds(pids: Sequence[int]) -> float:
    """Return the processor time, user and kernel, that the processes have used.

    It is read from their clocks (clock_getcpuclockid(3)), which count nanoseconds where the two
    fields of /proc/PID/stat, utime and stime, count hundredths of a second.  The kernel brings the
    clock of another process up to date when that stops running, and until then at its own ticks
    alone (up to 10 ms), so this waits until a process has stopped, for at most two ticks.
    """
    return sum(_processor_seconds(pid) for pid in pids)


def _processor_seconds(pid: int) -> float:
    deadline = time.monotonic() + 0.02
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.0002)
    return time.clock_gettime((~pid << 3) | 2)


def _runs(pid: int) -> bool:
    """Tell whether a thread of the process runs or waits for a processor: its state is R."""
    states = (path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat"))
    return any(state.rpartition(")")[2].split()[0] == "R" for state in states)


def proportional_set_size(pid: int) -> int:
    """Return the process's share of memory in bytes: Pss in /proc/PID/smaps_rollup."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    if not found:
        raise BenchError(f"/proc/{pid}/smaps_rollup has no Pss")
    return int(found[1]) * 1024


def descriptors(pid: int) -> int:
    """Return how many descriptors the process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))
