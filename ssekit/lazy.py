"""Public names that are imported when they are first used: a CGI process then starts faster.

A package's ``__init__`` writes ``__getattr__ = exports(...)`` (PEP 562) beside the same imports
under ``TYPE_CHECKING``.  This module knows no name of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def exports(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a ``__getattr__`` for ``package`` that finds each name in the module given for it.

    It raises AttributeError for any other name.
    """

    def find(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(modules[name]), name)

    return find
