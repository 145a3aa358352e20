"""Waits between attempts: how they grow, and that no two are the same."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ssekit.host.backoff import Backoff, jittered


def test_jitter_stays_in_its_bounds_and_fills_them() -> None:
    values = [jittered(100, 0.5, 1.5) for _ in range(1000)]
    assert all(50 <= value <= 150 for value in values)
    assert min(values) < 60
    assert max(values) > 140


def test_waits_double_up_to_the_longest() -> None:
    backoff = Backoff(0.1, 1.0, low=1.0, high=1.0)
    assert [backoff.next() for _ in range(6)] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0])
    assert backoff.failures == 6
    backoff.reset()
    assert backoff.next() == pytest.approx(0.1)


def test_a_wait_is_at_least_half_its_length() -> None:
    for _ in range(100):
        assert 0.5 <= Backoff(1.0, 30.0).next() <= 1.0


def test_thousands_of_failures_overflow_nothing() -> None:
    backoff = Backoff(0.1, 5.0)
    backoff.failures = 1_000_000
    assert backoff.next() <= 5.0


def test_the_children_of_a_fork_wait_differently() -> None:
    reader, writer = os.pipe()
    for _ in range(8):
        child = os.fork()
        if child == 0:
            os.write(writer, b"%.9f\n" % jittered(1.0))
            os._exit(0)
        os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as lines:
        assert len(set(lines)) == 8


def test_jitter_imports_nothing_that_a_cgi_process_would_pay_for() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "ssekit.host.backoff"]
    imported = subprocess.run(command, capture_output=True, check=True).stderr.decode().split()
    assert "ssekit.host" in imported
    assert "random" not in imported
