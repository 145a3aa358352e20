"""Programs that some tests need and that a machine may lack."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

from ssekit.host.batch_send import WAYS
from ssekit.host.kernel_queue import KernelQueue


def need(program: str) -> str:
    """Return the program's path; without it skip the test, or fail it where CI=true."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin:/usr/local/sbin")
    if path is None:
        _missing(f"needs {program}, which is not installed")
    return path


def need_packages(folder: Path) -> None:
    """Without the folder's packages from npm skip the test, or fail it where CI=true."""
    if not (folder / "node_modules" / ".package-lock.json").exists():
        _missing(f"needs the packages of tests/{folder.name}: run npm ci there")


def need_queue(way: str) -> KernelQueue:
    """Return the queue of a way of sending; skip the test where the kernel or a sandbox has none.

    Also where CI=true.
    """
    try:
        return WAYS[way][0]()
    except OSError as error:
        pytest.skip(f"no {way} on this machine: {error}")


def _missing(what: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)
