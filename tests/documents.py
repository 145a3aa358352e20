"""The Python files that a page of the documentation shows, as modules."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def files_of(text: str, mark: str = "# ") -> dict[str, str]:
    """Return the Python blocks of a page by name, which follows ``mark`` in their first line."""
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return {code.partition("\n")[0].removeprefix(mark): code for code in blocks}


@contextmanager
def module(folder: Path, name: str) -> Iterator[Any]:
    """Import a file of a folder, and close its hub if it has one."""
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    try:
        yield loaded
    finally:
        if hasattr(loaded, "hub"):
            loaded.hub.close()
