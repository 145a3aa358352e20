"""Shells in which a page's commands run in order, as in the terminals of its reader."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tests.waiting import until

_END = "--end of block "


class Terminal:
    """A shell that keeps its folder and variables from one block of commands to the next."""

    def __init__(self, log: Path, *, cwd: Path, env: Mapping[str, str]) -> None:
        self._log = log
        self._blocks = 0
        self._from = 0  # where the output of the last block begins
        with log.open("wb") as output:
            self._shell = subprocess.Popen(
                ["bash", "--noprofile", "--norc"],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=env,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """What the last block has printed."""
        return self._log.read_bytes()[self._from :].decode(errors="replace")

    def run(self, commands: str) -> None:
        """Begin a block of commands; what still runs of the last one is ended by Ctrl-C."""
        if self._blocks:
            self.interrupt()
        self._from = self._log.stat().st_size
        self._blocks += 1
        # In braces a block is read whole before it runs.  The trap keeps the shell from ending
        # together with a command that is interrupted.
        block = f"trap : INT\n{{\n{commands.rstrip()}\n}} </dev/null\n"
        block += f'echo "{_END}{self._blocks} $?"\n'
        assert self._shell.stdin is not None
        self._shell.stdin.write(block.encode())
        self._shell.stdin.flush()

    def interrupt(self) -> None:
        """Press Ctrl-C unless the last block has ended."""
        for _ in range(5):  # A person presses it again if nothing happens: a reload loses one.
            if self._status():
                return
            os.killpg(self._shell.pid, signal.SIGINT)
            with suppress(AssertionError):
                until(self._status, 4)
        raise AssertionError(f"Ctrl-C does not end the block: {self.output}")

    def finish(self) -> None:
        """Wait until the last block has ended, and fail unless its last command succeeded."""
        until(self._status, 60, f"the block to end: {self.output}")
        assert self._status() == "0", self.output

    def shows(self, *lines: str) -> None:
        """Wait until these lines were printed in this order; numbers that differ are alike."""
        wanted = [_plain(line) for line in lines]

        def printed() -> bool:
            shown = iter(_plain(self.output).splitlines())
            return all(any(line in one for one in shown) for line in wanted)

        until(printed, 20, f"{lines} to be shown by {self.output}")

    def close(self) -> None:
        """End the shell and all that it has started."""
        if self._blocks:
            self.interrupt()
        assert self._shell.stdin is not None
        self._shell.stdin.close()
        self._shell.wait(10)

    def _status(self) -> str:
        found = re.search(rf"{_END}{self._blocks} (\d+)\n", self.output)
        return found[1] if found else ""


def _plain(text: str) -> str:
    """The text without the numbers that are others each time: those of ids and of retry."""
    return re.sub(r"\d{13}-|(?<=retry: )\d+", "N", text)
