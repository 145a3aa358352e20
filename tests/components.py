"""Programs that some tests need and that a machine may lack."""

from __future__ import annotations

import os
import shutil

import pytest


def need(program: str) -> str:
    """Return the program's path; without it skip the test, or fail it where CI=true."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin:/usr/local/sbin")
    if path is None:
        missing = f"needs {program}, which is not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return path
