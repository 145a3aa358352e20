"""CONTRIBUTING says where the test of each behaviour is: every file once, and no other."""

from __future__ import annotations

import re

from tests.servers import ROOT


def test_the_map_of_contributing_names_every_test_file_once() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    table = text.partition("## Where is the test of ...")[2].partition("\n## ")[0]
    named = re.findall(r"`(tests/\w+\.py)`", table)
    files = [str(path.relative_to(ROOT)) for path in ROOT.glob("tests/test_*.py")]
    assert sorted(named) == sorted(files)
