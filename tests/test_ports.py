"""Test processes side by side never start their servers on one port."""

from __future__ import annotations

import subprocess

from tests.commands import program
from tests.servers import ROOT


def test_no_port_is_given_twice() -> None:
    askers = [
        subprocess.Popen(
            program("asks_for_ports"),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    ports: list[str] = []
    for asker in askers:
        assert asker.stdout
        ports += asker.stdout.readline().split()
    for asker in askers:
        asker.communicate("\n", timeout=10)
    assert len(set(ports)) == 300
