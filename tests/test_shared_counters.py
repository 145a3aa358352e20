"""Numbers that the processes of a server share: sums, deaths, restarts, and what files are left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ssekit.host import shared_counters
from ssekit.host.shared_counters import SLOTS, SharedCounters, join, read
from ssekit.hub.counters_file import counters_file
from tests.servers import ROOT


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "hub.db-counters"
    for counters in shared_counters._joined.values():
        counters._close()
    shared_counters._joined.clear()


class Counting:
    """A process of ``tests/apps/counting.py``."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def __call__(self, command: str = "totals") -> tuple[int, int, int]:
        """Tell it what to do; the counter's sum, the gauge's, and the number of processes."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        opened, now_open, processes = self.process.stdout.readline().split()
        return int(opened), int(now_open), int(processes)

    def end(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)
        self.process.wait()


@contextmanager
def counting(path: Path, *before: str) -> Iterator[Counting]:
    command = [*before, sys.executable, "-m", "tests.apps.counting", str(path)]
    with subprocess.Popen(
        command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            yield Counting(process)
        finally:
            process.kill()


def test_any_process_tells_the_sum_of_all(path: Path) -> None:
    with counting(path) as one, counting(path) as two, counting(path) as three:
        one("add 1")
        two("add 20")
        three("add 300")
        one("set 4")
        two("set 50")
        assert [one(), two(), three()] == [(321, 54, 3)] * 3


def test_another_process_reads_the_sums_without_being_counted(path: Path) -> None:
    names = ["opened"], ["open"]
    assert read(path, *names) is None
    with counting(path) as one, counting(path) as two:
        one("add 1")
        two("add 20")
        two("set 3")
        for _ in range(2):
            assert read(path, *names) == ({"opened": 21, "open": 3}, 2)
        assert one() == (21, 3, 2)
        assert read(path, ["other"], ["names"]) is None
        two.end()
        assert read(path, *names) == ({"opened": 21, "open": 0}, 1)
        join(path, *names).add("opened")
        assert read(path, *names) == ({"opened": 22, "open": 0}, 2)
        assert one() == (22, 0, 2)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_ended_process_leaves_its_counters_and_takes_its_gauges(path: Path, number: int) -> None:
    with counting(path) as one, counting(path) as two:
        one("add 5")
        one("set 7")
        assert two("add 1") == (6, 7, 2)
        one.end(number)
        assert two() == (6, 0, 1)
        with counting(path) as again:
            assert again("add 10") == (16, 0, 2)
            assert two() == (16, 0, 2)


def test_a_server_of_one_worker_that_is_replaced_loses_no_counter(path: Path) -> None:
    for number in range(1, 4):
        with counting(path) as worker:
            assert worker("add 1") == (number, 0, 1)
            worker("set 3")
            worker.end()


def test_a_server_that_starts_anew_counts_from_zero(path: Path) -> None:
    # Each with a parent of its own, as two servers have.
    for _ in range(2):
        with counting(path, "sh", "-c", '"$@" && true', "sh") as worker:
            assert worker("add 1") == (1, 0, 1)
            assert worker.process.stdin is not None
            worker.process.stdin.close()
            worker.process.wait()


def test_places_are_taken_again(path: Path) -> None:
    with counting(path) as first:
        first("add 1")
        size = path.stat().st_size
        for _ in range(5):
            with counting(path) as worker:
                worker("add 1")
        assert first() == (6, 0, 1)
        assert path.stat().st_size == size
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_child_counts_for_itself_and_leaves_its_parent_alone(path: Path) -> None:
    with counting(path) as parent:
        parent("add 10")
        parent("set 5")
        assert parent("fork") == (11, 5, 1)
        with counting(path) as other:
            assert other() == (11, 5, 2)
        assert parent("set 6") == (11, 6, 1)


class Slow(int):
    """One, whose addition lets another thread run in the middle."""

    def __radd__(self, other: int) -> int:
        time.sleep(0.0001)
        return other + 1


def test_threads_lose_no_count(path: Path) -> None:
    counters = join(path, ["opened"])

    def count() -> None:
        for _ in range(100):
            counters.add("opened", Slow(1))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters.totals() == ({"opened": 400}, 1)


def test_a_process_has_one_place_however_often_it_joins(path: Path) -> None:
    assert join(path, ["opened"]) is join(path, ["opened"])
    join(path, ["opened"]).add("opened")
    assert join(path, ["opened"]).totals() == ({"opened": 1}, 1)


def test_where_there_can_be_no_file_a_process_counts_for_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    counters = SharedCounters(tmp_path / "no folder" / "x-counters", ["opened"], ["open"])
    for _ in range(3):
        counters.add("opened", 2)
        counters.set("open", 1)
    assert counters.totals() == ({"opened": 6, "open": 1}, 1)
    assert caplog.text.count("counts for itself") == 1
    alone = join(None, ["opened"])
    alone.add("opened")
    assert alone.totals() == ({"opened": 1}, 1)


@pytest.mark.parametrize("what", ["a text", "a link", "a folder"])
def test_what_is_not_ours_is_left_alone(
    path: Path, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    other = path.with_name("other")
    if what == "a folder":
        path.mkdir()
    else:
        (path if what == "a text" else other).write_text("somebody's work\n")
        if what == "a link":
            path.symlink_to(other)
    counters = join(path, ["opened"])
    counters.add("opened")
    assert counters.totals() == ({"opened": 1}, 1)
    assert "counts for itself" in caplog.text
    if what != "a folder":
        assert path.read_text() == "somebody's work\n"


def test_other_names_are_another_file_and_never_a_wrong_sum(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with counting(path) as worker:
        worker("add 5")
        other = join(path, ["published"])
        other.add("published")
        assert other.totals() == ({"published": 1}, 1)
        assert "another version" in caplog.text
        assert worker() == (5, 0, 1)
        worker.end()
    shared_counters._joined.clear()
    other = join(path, ["published"])
    other.add("published")
    assert other.totals() == ({"published": 1}, 1)


def test_more_processes_than_places_count_for_themselves(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert SLOTS == 256
    monkeypatch.setattr(shared_counters, "SLOTS", 0)
    counters = join(path, ["opened"])
    counters.add("opened")
    assert "places are taken" in caplog.text


def test_files_of_servers_that_have_gone_are_deleted(path: Path) -> None:
    names = ["old-counters", "used-counters", "new-counters", "notes-counters"]
    old, used, new, notes = [path.with_name(name) for name in names]
    notes.write_text("somebody's work\n")
    with counting(used) as living:
        living("add 1")
        for left in (old, new):
            with counting(left) as worker:
                worker("add 1")
                worker.end()
        for idle in (old, used, notes):
            os.utime(idle, (time.time() - 3600, time.time() - 3600))
        join(path, ["opened"]).add("opened")
        assert sorted(file.name for file in path.parent.iterdir()) == [
            "hub.db-counters",
            "new-counters",
            "notes-counters",
            "used-counters",
        ]
        assert living("add 1") == (2, 0, 1)


def test_a_stopped_process_that_holds_the_files_lock_delays_nobody_for_long(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shared_counters, "_PATIENCE", 0.05)
    with counting(path) as holder:
        holder("hold")
        counters = join(path, ["opened"], ["open"])
        counters.add("opened")
        assert counters.totals() == ({"opened": 1, "open": 0}, 1)
        assert "counts for itself" in caplog.text


def test_the_file_is_found_by_the_hubs_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert counters_file("memory:") is None
    assert counters_file("sqlite:////srv/a%20b.db") == Path("/srv/a b.db-counters")
    assert counters_file("sqlite:///hub.db") == tmp_path / "hub.db-counters"
    redis = counters_file("redis://:password@10.0.0.5/0")
    assert redis is not None
    assert redis == counters_file("redis://:password@10.0.0.5/0")
    assert redis != counters_file("redis://:password@10.0.0.5/1")
    assert redis.parent == tmp_path / "ssekit"
    assert "password" not in str(redis)
