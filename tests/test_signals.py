"""The tests run where SIGINT is ignored: in the background of a shell, or under nohup."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.servers import ROOT

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("processes", ["0", "1"])
def test_what_tests_start_can_be_interrupted_where_sigint_is_ignored(processes: str) -> None:
    name = "tests/test_command_line.py::test_ctrl_c_ends_listen_quietly_with_130"
    command = [sys.executable, "-m", "pytest", "-q", "--numprocesses", processes, name]
    done = subprocess.run(
        command,
        cwd=ROOT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout
