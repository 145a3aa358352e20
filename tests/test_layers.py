"""Imports point down only, none goes both ways, and a copied folder needs nothing else.

A room is a module or package directly below ssekit.  Imports for types count, and so do those by
``import_module("...")``.  ``python -m tests.test_layers`` prints each room with what it imports.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.servers import ROOT

# From the bottom up: a room may import from the rooms in the lines below its own, here above it,
# and from its own.  The rooms of one line do not know each other.
FLOORS = [
    ["errors", "lazy"],
    ["wire"],
    ["host"],
    ["brokers", "stream"],
    ["hub"],
    ["access"],
    ["cgi"],
    ["script"],
    ["browser", "client", "gunicorn", "probe", "testing", "trusted_hosts"],
    ["cli", "demo", "django", "metrics"],
    ["__main__"],
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

# Who may import what does not come with Python.  A permission that is not used is an error.
FOREIGN: dict[str, set[str]] = {
    "django": {"ssekit.django"},
    "greenlet": {"ssekit.host"},
    "gevent": {"ssekit.gunicorn.worker", "ssekit.host", "ssekit.hub.fanout", "ssekit.hub.lagging"},
    "gunicorn": {"ssekit.cli.log_json", "ssekit.cli.served", "ssekit.gunicorn.worker"},
    "itsdangerous": {"ssekit.access.tickets"},
    "jwt": {"ssekit.access.jwt", "ssekit.access.keys"},
    "httpx": {"ssekit.client"},
    "prometheus_client": {"ssekit.metrics"},
    "psycopg": {"ssekit.brokers.postgresql"},
    "redis": {"ssekit.brokers.redis"},
    "rich": {"ssekit.cli.top"},
    "werkzeug": {
        "ssekit.access",
        "ssekit.demo",
        "ssekit.django.views",
        "ssekit.script",
        "ssekit.stream.source",
    },
}
STANDARD_ONLY = [
    "ssekit.wire",
    "ssekit.host",
    "ssekit.stream",
    "ssekit.stream.stream",
    "ssekit.cgi",
    "ssekit.script",
    "ssekit.script.folder",
    "ssekit.hub",
    "ssekit.brokers.memory",
    "ssekit.brokers.sqlite.broker",
]
PACKAGE = ROOT / "ssekit"


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def room_of(module: str) -> str:
    """The top-level module or package below ssekit that a module belongs to."""
    return module.split(".")[1]


def imported(path: Path) -> Iterator[str]:
    """The dotted names that a file imports, for types as well."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (name.value for name in node.args if isinstance(name, ast.Constant))


def module_of(name: str) -> str:
    """The module of ours that an imported name is, or is in."""
    while name not in FILES:
        name = name.rpartition(".")[0]
    return name


def arrows() -> dict[str, set[str]]:
    """Which modules of ours each module imports; the package's own ``__init__`` is no room."""
    return {
        module: {
            module_of(name)
            for name in imported(path)
            if name.startswith("ssekit.") and module_of(name) not in ("ssekit", module)
        }
        for module, path in FILES.items()
        if module != "ssekit"
    }


ARROWS = arrows()


def is_part_of(module: str, place: str) -> bool:
    return module == place or module.startswith(f"{place}.")


@pytest.mark.parametrize("module", ARROWS)
def test_imports_point_down(module: str) -> None:
    for other in ARROWS[module]:
        here, there = room_of(module), room_of(other)
        assert here == there or FLOOR[there] < FLOOR[here], f"{module} imports {other}"


def test_every_room_has_a_floor_and_every_floor_a_room() -> None:
    assert {room_of(module) for module in ARROWS} == set(FLOOR)


def arrows_inside(package: str) -> dict[str, set[str]]:
    """Return which parts of a package import which: its modules, and its packages as a whole."""

    def part(module: str) -> str:
        return ".".join(module.split(".")[: package.count(".") + 2])

    found: defaultdict[str, set[str]] = defaultdict(set)
    for module, others in ARROWS.items():
        if is_part_of(module, package):
            inside = {part(other) for other in others if is_part_of(other, package)}
            found[part(module)] |= inside - {part(module), package}
    return found


PACKAGES = [module for module, path in FILES.items() if path.name == "__init__.py"]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_arrow_between_the_parts_of_a_package_goes_both_ways_or_in_a_circle(
    package: str,
) -> None:
    arrows = arrows_inside(package)
    # The package's own __init__ names what its parts define: it may import any of them.
    arrows.pop(package, None)
    try:
        list(TopologicalSorter(arrows).static_order())
    except CycleError as error:
        pytest.fail(f"a circle: {' <- '.join(error.args[1])}")


def test_no_arrow_between_modules_goes_in_a_circle() -> None:
    inits = set(PACKAGES)
    modules = {module: others - inits for module, others in ARROWS.items() if module not in inits}
    list(TopologicalSorter(modules).static_order())


@pytest.mark.parametrize("module", [module for module in ARROWS if module not in PACKAGES])
def test_a_module_imports_from_the_module_that_defines_a_name_in_its_own_package(
    module: str,
) -> None:
    above = {package for package in PACKAGES if is_part_of(module, package)}
    assert not above & ARROWS[module]


def test_every_package_that_does_not_come_with_python_is_in_the_table() -> None:
    known = {*sys.stdlib_module_names, *FOREIGN, "ssekit"}
    for module, path in FILES.items():
        strangers = {name.partition(".")[0] for name in imported(path)} - known
        assert not strangers, f"{module} imports {strangers}"


@pytest.mark.parametrize("package", FOREIGN)
def test_what_does_not_come_with_python_is_imported_where_it_belongs(package: str) -> None:
    users = {
        module
        for module, path in FILES.items()
        if any(name.partition(".")[0] == package for name in imported(path))
    }
    allowed = FOREIGN[package]
    for user in users:
        assert any(is_part_of(user, place) for place in allowed), f"{user} imports {package}"
    for place in allowed:
        assert any(is_part_of(user, place) for user in users), f"{place} does not need {package}"


def test_the_brokers_do_not_know_each_other() -> None:
    kinds = ["memory", "sqlite", "redis", "postgresql"]
    for module, others in ARROWS.items():
        own = [kind for kind in kinds if is_part_of(module, f"ssekit.brokers.{kind}")]
        if own:
            for other in others:
                strange = [kind for kind in kinds if is_part_of(other, f"ssekit.brokers.{kind}")]
                assert strange in ([], own), f"{module} imports {other}"


@pytest.mark.parametrize("module", STANDARD_ONLY)
def test_a_copied_folder_needs_the_standard_library_alone(module: str) -> None:
    # -I -S: no site-packages at all.
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {module}"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)


def picture() -> str:
    """Each floor from the top with its rooms, and the rooms that each one imports."""
    below: defaultdict[str, set[str]] = defaultdict(set)
    for module, others in ARROWS.items():
        below[room_of(module)] |= {room_of(other) for other in others} - {room_of(module)}
    lines = []
    for number in range(len(FLOORS) - 1, -1, -1):
        rooms = [room for room in FLOORS[number] if room in below]
        lines += [
            f"{number}  {room:9} -> {', '.join(sorted(below[room])) or '(nothing)'}"
            for room in rooms
        ]
    total = sum(len(others) for others in below.values())
    return "\n".join([*lines, f"{len(below)} rooms, {total} arrows between them"])


if __name__ == "__main__":
    print(picture())
