"""Real servers as processes on free ports: ``with gunicorn("tests.apps.clock:app") as server``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.ports import answers, free_port
from tests.waiting import until

ROOT = Path(__file__).resolve().parent.parent


def seconds_without_processor(pid: int) -> float:
    """How long the process's threads have waited for a processor: schedstat's second field."""
    waited = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # It has ended meanwhile.
            waited += int((thread / "schedstat").read_text().split()[1])
    return waited / 1e9


class Server:
    """A process that listens on a port of 127.0.0.1."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self._log = log

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def children(self) -> list[int]:
        pid = self.process.pid
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]

    def seconds_to_stop(self, number: int = signal.SIGTERM) -> float:
        """Send the signal; how long the process took to go, as `seconds_until` counts."""
        self.process.send_signal(number)
        return self.seconds_until(lambda: self.process.poll() is not None)

    def seconds_until(self, condition: Callable[[], object]) -> float:
        """Wait for the condition; how long that took the server and its workers.

        Not counted is the time in which they, or we who look, could have run and had no processor:
        that is the time of whatever else this machine does.
        """
        pids = (os.getpid(), self.process.pid, *self.children())
        before = {pid: seconds_without_processor(pid) for pid in pids}
        waited = dict(before)

        def met() -> object:
            with suppress(FileNotFoundError, ProcessLookupError):  # It has gone.
                for pid in (os.getpid(), self.process.pid, *self.children()):
                    waited[pid] = seconds_without_processor(pid)
            return condition()

        began = time.monotonic()
        until(met, 30, "the server")
        took = time.monotonic() - began
        return took - sum(seconds - before.get(pid, 0) for pid, seconds in waited.items())

    def listening(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"the server exited with {self.process.returncode}:\n{self.log}")
        return answers(self.port)

    def stop(self, number: int = signal.SIGTERM, seconds: float = 15.0) -> None:
        """Send the signal and wait for the process to go; kill it after ``seconds``."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            if time.monotonic() > deadline:
                self.process.kill()
                self.process.wait()
                raise AssertionError(f"the server did not end in {seconds} s:\n{self.log}")
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(2)
                break
            # A worker that gunicorn has just forked does not listen to signals yet.
            with suppress(FileNotFoundError, ProcessLookupError):
                for child in self.children():
                    os.kill(child, number)


@contextmanager
def running(
    command: list[str],
    port: int,
    *,
    env: Mapping[str, str] = {},
    cwd: Path = ROOT,
    user: int | None = None,
) -> Iterator[Server]:
    """Run a server's command in its own process, as ``user`` if given, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="ssekit-test-") as folder:
        log = Path(folder, "log")
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        with log.open("wb") as output:
            if user is not None:
                os.fchown(output.fileno(), user, -1)  # Some servers open /dev/stderr anew.
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                user=user,
                group=user,
                extra_groups=None if user is None else [],
            )
        server = Server(process, port, log)
        try:
            until(server.listening, 20, f"{command[0]} to listen")
            yield server
        finally:
            if process.poll() is None:
                server.stop()


@contextmanager
def gunicorn(
    target: str, *options: str, worker: str = "gevent", env: Mapping[str, str] = {}
) -> Iterator[Server]:
    """gunicorn without a configuration file: what a user has who says nothing else."""
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--config", "/dev/null", "-k", worker]
    command += ["--bind", f"127.0.0.1:{port}", *options, target]
    with running(command, port, env=env) as server:
        yield server
