"""ssekit.js by itself: its tests under node, its types, its size, and the npm package."""

from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path

import pytest

import ssekit
from tests.components import need, need_packages
from tests.servers import ROOT

pytestmark = pytest.mark.slow

TESTS = ROOT / "tests" / "browser_js"
PACKAGE = ROOT / "ssekit" / "browser"
LARGEST = 8 * 1024


def done(*command: str | Path, cwd: Path = TESTS) -> str:
    """Run a command and return what it printed; fail with that if it failed."""
    process = subprocess.run(
        command, cwd=cwd, check=False, capture_output=True, text=True, timeout=120
    )
    assert process.returncode == 0, f"{process.stdout}\n{process.stderr}"
    return process.stdout


def tool(name: str) -> Path:
    """A program of the packages from npm."""
    need("npm")
    need_packages(TESTS)
    return TESTS / "node_modules" / ".bin" / name


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", sorted(path.name for path in TESTS.glob("*.test.mjs")))
def test_under_node(name: str) -> None:
    printed = done(need("node"), "--test", "--test-reporter=tap", name)
    assert "\n# fail 0" in printed
    assert "\n# pass 0" not in printed


def test_its_comments_are_right_types() -> None:
    done(tool("tsc"), "-p", TESTS)


def test_the_types_that_it_ships_are_those_of_its_comments() -> None:
    tool("tsc")
    done(need("node"), "types.mjs")


def test_a_typescript_program_sees_the_types() -> None:
    done(tool("tsc"), "-p", TESTS / "typed")


def test_it_is_at_most_8_kb_minified_and_compressed() -> None:
    minified = done(tool("esbuild"), "--minify", "--target=es2022", PACKAGE / "ssekit.js")
    size = len(gzip.compress(minified.encode(), 9))
    assert size <= LARGEST, f"{size} bytes"


def test_the_npm_package_has_the_version_of_the_python_package() -> None:
    assert json.loads((PACKAGE / "package.json").read_text())["version"] == ssekit.__version__


def test_the_npm_package_has_the_module_and_its_types_alone(tmp_path: Path) -> None:
    need("npm")
    printed = done("npm", "pack", "--json", "--pack-destination", tmp_path, PACKAGE)
    (packed,) = json.loads(printed)
    names = {file["path"] for file in packed["files"]}
    assert names == {"README.md", "package.json", "ssekit.d.ts", "ssekit.js"}


@pytest.mark.ci
def test_publint_and_attw_find_nothing_in_the_npm_package() -> None:
    done(tool("publint"), "--strict", PACKAGE)
    done(tool("attw"), "--pack", PACKAGE, "--profile", "esm-only")
