"""What gunicorn will be told, as far as it can be known without starting it.

``gunicorn.conf.py`` in the current folder is read and not run, and so is ``GUNICORN_CMD_ARGS``.
What is only in a command line or a unit of systemd is not seen.
"""

from __future__ import annotations

import argparse
import ast
import os
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any

_OPTIONS = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
_OPTIONS.add_argument("--preload", dest="preload_app", action="store_const", const=True)
_OPTIONS.add_argument("-k", "--worker-class", dest="worker_class")
_OPTIONS.add_argument("-w", "--workers", dest="workers", type=int)


def server_settings() -> dict[str, Any]:
    """Return ``preload_app``, ``worker_class`` and ``workers``, those that are said somewhere."""
    found: dict[str, Any] = {}
    workers = os.environ.get("WEB_CONCURRENCY", "")
    if workers.isdigit():
        found["workers"] = int(workers)
    with suppress(OSError, ValueError, SyntaxError):  # gunicorn will say what is wrong with it
        found.update(_assigned(Path("gunicorn.conf.py").read_text("utf-8")))
    try:
        given, _ = _OPTIONS.parse_known_args(shlex.split(os.environ.get("GUNICORN_CMD_ARGS", "")))
    except (ValueError, argparse.ArgumentError):
        return found
    found.update((name, value) for name, value in vars(given).items() if value is not None)
    return found


def _assigned(source: str) -> dict[str, Any]:
    """Return the names that a file gives a constant."""
    return {
        target.id: statement.value.value
        for statement in ast.parse(source).body
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
