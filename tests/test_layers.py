"""Imports point down only, and what must work from a copied folder needs nothing installed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import ROOT

# From the bottom up: a module may import from its own line's left and from the lines above it.
LAYERS = [
    ["errors", "wire"],
    ["servers", "host"],
    ["timer", "negotiation"],
    ["limits", "source"],
    ["stream"],
    ["brokers"],
    ["ring"],
    ["tail"],
    ["subscription"],
    ["fanout"],
    ["hub"],
    ["cgi"],
    ["runs"],
    ["folder"],
    ["script"],
    ["probe", "client", "gunicorn", "testing"],
    ["census", "posting", "app"],
    ["commands", "doctor", "config"],
    ["cli"],
    ["__main__"],
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
FOREIGN = {
    "gevent": {"host", "fanout"},
    "gunicorn": {"fanout", "gunicorn"},
    "redis": {"brokers"},
    "httpx": {"client", "doctor"},
    "werkzeug": {"app", "posting", "source", "script", "probe"},
}
STANDARD_ONLY = [
    "ssekit.wire",
    "ssekit.host",
    "ssekit.stream",
    "ssekit.cgi",
    "ssekit.script",
    "ssekit.folder",
    "ssekit.hub",
    "ssekit.brokers.memory",
    "ssekit.brokers.sqlite",
]
MODULES = sorted((ROOT / "ssekit").rglob("*.py"))


def unit(path: Path) -> str:
    """The top-level module or package below ssekit that a file belongs to."""
    return path.relative_to(ROOT / "ssekit").with_suffix("").parts[0]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            module = node.module or ""
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    own = unit(path)
    for name in imports(path):
        top, _, rest = name.partition(".")
        if top == "ssekit" and own != "__init__":
            used = rest.split(".")[0]
            if used in RANK and used != own:
                assert RANK[used] <= RANK[own], f"{own} imports {used}, which is above it"
        elif top in FOREIGN:
            assert own in FOREIGN[top], f"{own} imports {top}"


def test_the_brokers_do_not_know_each_other() -> None:
    names = {"memory", "sqlite", "redis"}
    for path in (ROOT / "ssekit" / "brokers").glob("*.py"):
        if path.stem in names:
            for other in names - {path.stem}:
                assert not any(f"brokers.{other}" in name for name in imports(path))


@pytest.mark.parametrize("module", STANDARD_ONLY)
def test_a_copied_folder_needs_the_standard_library_alone(module: str) -> None:
    # -I -S: no site-packages at all.
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {module}"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)
