"""What is special to ``sqlite:``: the file, its folder, and what people and disks do to them."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ssekit import BrokerUnavailable, Event
from ssekit.brokers import Broker, HistoryLost, connect, parse_id
from ssekit.brokers.sqlite.other_processes import Neighbours
from tests.commands import printed, program
from tests.servers import ROOT
from tests.test_brokers import events, everything, followed
from tests.waiting import until, until_asleep


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
def broker(path: Path) -> Iterator[Broker]:
    broker = connect(f"sqlite:///{path}")
    yield broker
    broker.close()


def delete(path: Path, *suffixes: str) -> None:
    for suffix in suffixes:
        Path(f"{path}{suffix}").unlink(missing_ok=True)


@pytest.mark.parametrize("suffixes", [("",), ("", "-wal", "-shm"), ("-wal", "-shm", "")])
def test_a_deleted_file_is_noticed_by_whoever_follows_and_publishes(
    broker: Broker, path: Path, suffixes: tuple[str, ...]
) -> None:
    before = str(broker.append("news", Event("before")).id)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(broker.follow, before, 20)
        until_asleep(pool)
        delete(path, *suffixes)
        with pytest.raises(HistoryLost):
            waiting.result(20)
    start = broker.tip()
    assert parse_id(start)[0] > parse_id(before)[0]
    assert parse_id(start)[1] == 0
    after = broker.append("news", Event("after"))
    assert everything(broker, start, "news") == [after]
    with pytest.raises(HistoryLost):
        broker.read(["news"], before, 10)


def test_a_replaced_file_is_another_log(broker: Broker, path: Path, tmp_path: Path) -> None:
    start = broker.tip()
    other = connect(f"sqlite:///{tmp_path}/other.db")
    there = other.tip()
    sent = other.append("news", Event("in the other file"))
    other.close()
    os.replace(tmp_path / "other.db", path)
    with pytest.raises(HistoryLost):
        broker.read(["news"], start, 10)
    assert everything(broker, there, "news") == [sent]


def test_a_link_to_the_file_is_the_file(path: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "one" / "log.db")
    linked, real = connect(f"sqlite:///{link}"), connect(f"sqlite:///{tmp_path}/one/log.db")
    cursor = linked.tip()
    started = time.monotonic()
    with ThreadPoolExecutor() as pool:
        for n in range(20):  # each wakes the other, though they name the file differently
            waiting = pool.submit(linked.follow, cursor, 10)
            until_asleep(pool)
            sent = real.append("news", Event(n))
            entries, cursor = waiting.result()
            assert events(entries) == [sent]
    assert time.monotonic() - started < 5
    os.unlink(tmp_path / "one" / "log.db")  # and its -wal is left
    sent = linked.append("news", Event("after"))
    assert parse_id(str(sent.id))[1] == 1
    with pytest.raises(HistoryLost):
        real.read(["news"], cursor, 10)
    assert real.tip() == sent.id
    link.unlink()
    link.symlink_to(tmp_path / "two" / "log.db")
    assert parse_id(linked.tip())[1] == 0
    linked.close()
    real.close()


def test_deleting_the_file_under_many_publishers_breaks_nothing(path: Path) -> None:
    publishers = [
        subprocess.Popen(
            program("endless_publisher", f"sqlite:///{path}", "1.2"),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
        )
        for _ in range(4)
    ]
    for n in range(12):
        until(path.exists, 20)
        time.sleep(0.05)
        delete(path, *[("",), ("", "-wal", "-shm")][n % 2])
    assert [publisher.wait(30) for publisher in publishers] == [0] * 4
    broker = connect(f"sqlite:///{path}")
    start = broker.tip()
    sent = broker.append("news", Event("at last"))
    assert everything(broker, start, "news") == [sent]
    broker.close()
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    db.close()


def test_a_full_disk_is_said_at_publish_and_readers_live_on(path: Path) -> None:
    output = printed(
        "sqlite_on_a_full_disk",
        f"sqlite:///{path}",
    )
    assert output.split("\n") == ["True True True", "['after']", ""]


def test_a_read_only_disk_is_said_at_publish(broker: Broker, path: Path) -> None:
    broker.append("news", Event("x"))
    path.chmod(0o444)
    path.parent.chmod(0o555)
    # All folders above a test's own are root's; a user without rights stands for the disk.
    for folder in path.parents:
        if "pytest" in folder.name:
            folder.chmod(folder.stat().st_mode | 0o555)
    output = printed(
        "sqlite_without_rights",
        f"sqlite:///{path}",
        f"sqlite:///{path.parent}/new.db",
        f"sqlite:///{path.parent}/missing/new.db",
    )
    assert output.splitlines() == ["False True"] * 3


def test_a_lock_held_by_another_process_stops_no_greenlet(broker: Broker, path: Path) -> None:
    broker.tip()
    output = printed(
        "sqlite_locked",
        str(path),
    )
    assert output == "True 5\n"


def test_a_lock_held_for_too_long_is_said(
    broker: Broker, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = broker.tip()
    monkeypatch.setattr("ssekit.brokers.sqlite.broker._PATIENCE", 0.2)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(BrokerUnavailable, match="locked by another process") as raised:
        broker.append("news", Event("x"))
    assert not raised.value.maybe_stored
    other.close()
    assert broker.tip() == start


def test_a_publisher_that_is_killed_leaves_a_whole_log(broker: Broker, path: Path) -> None:
    start = broker.tip()
    for _ in range(5):
        with subprocess.Popen(
            program("endless_publisher", f"sqlite:///{path}"), cwd=ROOT, stdout=subprocess.PIPE
        ) as publisher:
            assert publisher.stdout is not None
            for _ in range(20):
                last = publisher.stdout.readline().decode().strip()
            publisher.send_signal(signal.SIGKILL)
            last = (publisher.stdout.read().decode().split() or [last])[-1]
        # What was acknowledged is there, and at most the one that was not.
        assert parse_id(broker.tip())[1] - parse_id(last)[1] in (0, 1)
    found = everything(broker, start, "news")
    assert len(found) == parse_id(broker.tip())[1]


def test_a_folder_that_goes_is_said_and_a_new_one_taken(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    broker = connect(f"sqlite:///{folder}/log.db")
    before = str(broker.append("news", Event("before")).id)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(broker.follow, before, 20)
        until_asleep(pool)
        shutil.rmtree(folder)
        with pytest.raises(BrokerUnavailable, match="No such file"):
            waiting.result(20)
    for _ in range(2):
        with pytest.raises(BrokerUnavailable, match="No such file") as raised:
            broker.append("news", Event("lost"))
        assert not raised.value.maybe_stored
    folder.touch()  # a file where the folder was
    with pytest.raises(BrokerUnavailable, match="Not a directory"):
        broker.append("news", Event("lost"))
    folder.unlink()
    folder.mkdir()
    start = broker.tip()
    sent = broker.append("news", Event("after"))
    assert everything(broker, start, "news") == [sent]
    with pytest.raises(HistoryLost):
        broker.read(["news"], before, 10)
    shutil.rmtree(folder)
    broker.close()


def test_a_fork_waits_for_the_end_of_another_threads_transaction(path: Path) -> None:
    output = printed(
        "sqlite_fork_in_a_transaction",
        f"sqlite:///{path}",
    )
    assert output.split() == ["0", "4"]


@pytest.mark.parametrize("parent", ["ends", "closes its hub"])
def test_a_child_keeps_its_log_when_its_parent_is_gone(path: Path, parent: str) -> None:
    url = f"sqlite:///{path}"
    with subprocess.Popen(
        program("sqlite_orphan", url, parent),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        ids = [process.stdout.readline().strip()]
        for _ in range(3):
            process.stdin.write("go\n")
            ids.append(process.stdout.readline().strip())
            other = connect(url)  # opens and closes the file as if it were alone
            ids.append(str(other.append("news", Event("another's")).id))
            other.close()
    assert [parse_id(one)[1] for one in ids] == [1, 2, 3, 4, 5, 6, 7]
    broker = connect(url)
    assert len(everything(broker, f"{parse_id(ids[0])[0]}-0", "news")) == 7
    broker.close()


def test_a_database_of_something_else_is_left_alone(broker: Broker, path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE entry (mine)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(BrokerUnavailable, match="something else"):
        broker.append("news", Event("x"))
    assert path.read_bytes() == before
    path.write_bytes(b"not a database at all " * 100)
    with pytest.raises(BrokerUnavailable, match="not a database"):
        broker.append("news", Event("x"))


def mode(path: object) -> int:
    return stat.S_IMODE(os.stat(str(path)).st_mode)


def test_the_file_is_for_its_user_alone_unless_it_was_made_otherwise(
    tmp_path: Path, broker: Broker, path: Path
) -> None:
    before = os.umask(0o022)
    try:
        broker.follow(broker.tip(), 0.01)
        assert [mode(path), mode(f"{path}-wal"), mode(f"{path}-wake")] == [0o600, 0o600, 0o700]
        (tmp_path / "shared.db").touch()
        (tmp_path / "shared.db").chmod(0o660)
        shared = connect(f"sqlite:///{tmp_path}/shared.db")
        shared.follow(shared.tip(), 0.01)
        assert mode(tmp_path / "shared.db-wal") == 0o660
        assert mode(tmp_path / "shared.db-wake") == 0o770
        (wakeup,) = (tmp_path / "shared.db-wake").iterdir()
        assert mode(wakeup) == 0o660
        shared.close()
    finally:
        os.umask(before)


def test_the_sockets_of_the_dead_are_removed(broker: Broker, path: Path) -> None:
    tip = broker.tip()
    broker.follow(tip, 0.01)
    folder = Path(f"{path}-wake")
    (alive,) = folder.iterdir()
    for name in ("dead", "gone"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wakeup:
            wakeup.bind(str(folder / name))
    (folder / "a file").touch()
    other = connect(f"sqlite:///{path}")
    other.append("news", Event("x"))
    other.close()
    assert {entry.name for entry in folder.iterdir()} == {alive.name, "a file"}
    broker.close()
    assert [entry.name for entry in folder.iterdir()] == ["a file"]


def test_a_path_longer_than_a_socket_may_have_works(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 20) / ("longer" * 20)
    folder.mkdir(parents=True)
    one, two = (connect(f"sqlite:///{folder}/log.db") for _ in range(2))
    cursor = one.tip()
    started = time.monotonic()
    with ThreadPoolExecutor() as pool:
        for n in range(20):
            waiting = pool.submit(one.follow, cursor, 10)
            until_asleep(pool)
            two.append("news", Event(n))
            _, cursor = waiting.result()
    assert time.monotonic() - started < 5
    one.close()
    two.close()


def test_without_bells_a_follower_looks_now_and_then(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = (connect(f"sqlite:///{path}") for _ in range(2))
    tip = one.tip()
    Path(f"{path}-wake").touch()  # in the way
    with caplog.at_level(logging.WARNING), ThreadPoolExecutor() as pool:
        for n in range(3):
            waiting = pool.submit(one.follow, tip, 20)
            until_asleep(pool)
            tip = str(two.append("news", Event(n)).id)
            assert [event.id for event in events(waiting.result(20)[0])] == [tip]
    assert [record.name for record in caplog.records] == ["ssekit.brokers"] * 2  # each once
    delete(path, "-wake")
    started = time.monotonic()
    with ThreadPoolExecutor() as pool:
        for n in range(20):
            waiting = pool.submit(one.follow, tip, 20)
            until_asleep(pool)
            tip = str(two.append("news", Event(n)).id)
            assert waiting.result(20)
    assert time.monotonic() - started < 2.5, "the wake-ups came back with the folder"
    one.close()
    two.close()


def test_a_folder_that_all_may_write_to_is_not_used(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Path(f"{path}-wake").mkdir()
    Path(f"{path}-wake").chmod(0o777)
    broker = connect(f"sqlite:///{path}")
    start = broker.tip()
    broker.append("news", Event("x"))
    assert len(followed(broker, start, 1)) == 1
    assert list(Path(f"{path}-wake").iterdir()) == []
    assert "somebody else's folder" in caplog.text
    broker.close()


def test_the_file_does_not_grow_without_bound(path: Path) -> None:
    broker = connect(f"sqlite:///{path}", 100)

    def size() -> int:
        return sum(entry.stat().st_size for entry in path.parent.iterdir() if entry.is_file())

    for n in range(1200):
        broker.append(f"channel {n % 10}", Event("x" * 1000))
    small = size()
    assert small < 10_000_000
    for _ in range(100):
        broker.append("large", Event("x" * 200_000))
    large = size()
    for n in range(3500):
        broker.append(f"channel {n % 10}", Event("x" * 1000))
    assert size() < max(small, large // 4)
    broker.close()


def test_a_path_may_have_what_a_url_must_quote(tmp_path: Path) -> None:
    broker = connect(f"sqlite:///{tmp_path}/a%20b%3Fc%25.db")
    broker.append("news", Event("x"))
    broker.close()
    assert (tmp_path / "a b?c%.db").exists()


def test_three_slashes_are_a_path_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    broker = connect("sqlite:///here.db")
    monkeypatch.chdir("/")
    broker.tip()
    broker.close()
    assert (tmp_path / "here.db").exists()


def test_ids_that_a_power_cut_may_have_undone_are_not_given_again(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = broker.tip()
    before = [broker.append("news", Event(n)) for n in range(3)]
    epoch, _ = parse_id(start)
    with monkeypatch.context() as another_boot:
        another_boot.setattr("ssekit.brokers.sqlite.log.boot_of_machine", lambda: "another")
        assert broker.tip() == before[-1].id
        after = [broker.append("news", Event(n)) for n in range(2)]
    new, seq = parse_id(str(after[0].id))
    assert new > epoch
    assert seq == 4
    assert everything(broker, start, "news", limit=2) == before + after
    assert events(broker.follow(str(before[1].id), 1)[0]) == [before[2], *after]
    assert events(broker.follow(str(before[2].id), 1)[0]) == after
    for undone in (f"{epoch}-4", f"{epoch}-5"):
        with pytest.raises(HistoryLost):
            broker.read(["news"], undone, 10)
        with pytest.raises(HistoryLost):
            broker.follow(undone, 1)
    # The machine's next run is this one again, as far as the log can tell.
    last = broker.append("news", Event("last"))
    assert parse_id(str(last.id)) > (new, 5)
    assert everything(broker, str(before[0].id), "news") == [*before[1:], *after, last]


def test_a_file_of_another_version_is_left_alone(broker: Broker, path: Path) -> None:
    broker.tip()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    other = connect(f"sqlite:///{path}")
    with pytest.raises(BrokerUnavailable, match="another version"):
        other.append("news", Event("x"))
    other.close()


def test_a_bell_that_is_made_while_the_log_is_closed_warns_of_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / ("long" * 25)  # so that sockets are bound by way of the descriptor
    folder.mkdir()
    (folder / "log.db").touch()
    neighbours = Neighbours(str(folder / "log.db"))
    bind = neighbours.bind

    def closing(socket: Any) -> Any:
        bound = bind(socket)
        neighbours.close()
        reused.append(os.open(os.devnull, os.O_RDONLY))  # the folder's number
        return bound

    reused: list[int] = []
    monkeypatch.setattr(neighbours, "bind", closing)
    assert not neighbours.wakeup().usable()
    os.close(reused[0])
    assert not caplog.records
