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
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ssekit import BrokerUnavailable, HubClosed
from ssekit.brokers import Broker, Entry, HistoryLost, Retention, connect, parse_id
from ssekit.brokers.other_processes import OtherProcesses
from ssekit.brokers.sqlite import appending, place
from ssekit.brokers.sqlite.writing import Writer
from tests.logs import END, REMOVED, body, everything, followed, run
from tests.servers import ROOT
from tests.waiting import until, until_asleep

PROGRAM = (sys.executable, "-m", "tests.apps.sqlite_file")


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
def test_a_deleted_file_is_noticed_by_followers_and_publishers(
    broker: Broker, path: Path, suffixes: tuple[str, ...]
) -> None:
    before = broker.append("news", body("before")).id
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(broker.follow, before, 20)
        until_asleep(pool)
        delete(path, *suffixes)
        with pytest.raises(HistoryLost):
            waiting.result(20)
    start = broker.tip()
    assert parse_id(start)[0] > parse_id(before)[0]
    assert parse_id(start)[1] == 0
    after = broker.append("news", body("after"))
    assert everything(broker, start, "news") == [after]
    with pytest.raises(HistoryLost):
        broker.read(["news"], before, 10)


def test_a_replaced_file_is_another_log(broker: Broker, path: Path, tmp_path: Path) -> None:
    start = broker.tip()
    other = connect(f"sqlite:///{tmp_path}/other.db")
    there = other.tip()
    sent = other.append("news", body("in the other file"))
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
            sent = real.append("news", body(n))
            entries, cursor = waiting.result()
            assert entries == [sent]
    assert time.monotonic() - started < 5
    os.unlink(tmp_path / "one" / "log.db")  # and its -wal is left
    sent = linked.append("news", body("after"))
    assert parse_id(sent.id)[1] == 1
    with pytest.raises(HistoryLost):
        real.read(["news"], cursor, 10)
    assert real.tip() == sent.id
    link.unlink()
    link.symlink_to(tmp_path / "two" / "log.db")
    assert parse_id(linked.tip())[1] == 0
    linked.close()
    real.close()


def test_a_file_that_is_deleted_while_it_is_looked_at_is_made_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(connect(f"sqlite:///{path}")) as broker:
        broker.append("news", body("before"))
    look = place._header

    def look_too_late(at: str) -> tuple[int, int]:
        monkeypatch.setattr(place, "_header", look)
        path.unlink()
        return look(at)

    monkeypatch.setattr(place, "_header", look_too_late)
    with closing(connect(f"sqlite:///{path}")) as broker:
        assert parse_id(broker.append("news", body("after")).id)[1] == 1


def test_deleting_the_file_under_many_publishers_breaks_nothing(path: Path) -> None:
    publishers = [
        subprocess.Popen([*PROGRAM, "publish_for", f"sqlite:///{path}", "1.2"], cwd=ROOT)
        for _ in range(4)
    ]
    for n in range(12):
        until(path.exists, 20)
        time.sleep(0.05)
        delete(path, *[("",), ("", "-wal", "-shm")][n % 2])
    assert [publisher.wait(30) for publisher in publishers] == [0] * 4
    broker = connect(f"sqlite:///{path}")
    start = broker.tip()
    sent = broker.append("news", body("at last"))
    assert everything(broker, start, "news") == [sent]
    broker.close()
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    db.close()


def test_a_full_disk_is_said_at_publish_and_readers_live_on(path: Path) -> None:
    output = run("tests.apps.sqlite_file", "on_a_full_disk", f"sqlite:///{path}")
    assert output.splitlines() == ["False True"] * 5 + ["True True True", "['after']"]


def test_a_read_only_disk_is_said_at_publish(broker: Broker, path: Path) -> None:
    broker.append("news", body("x"))
    path.chmod(0o444)
    path.parent.chmod(0o555)
    # All folders above a test's own are root's; a user without rights stands for the disk.
    for folder in path.parents:
        if "pytest" in folder.name:
            folder.chmod(folder.stat().st_mode | 0o555)
    urls = [path, path.parent / "new.db", path.parent / "missing" / "new.db"]
    output = run("tests.apps.sqlite_file", "without_rights", *(f"sqlite:///{one}" for one in urls))
    assert output.splitlines() == ["False True"] * 3


def test_a_lock_held_by_another_process_stops_no_greenlet(broker: Broker, path: Path) -> None:
    broker.tip()
    output = run("tests.apps.sqlite_file", "beside_a_lock", f"sqlite:///{path}")
    assert output == "True 5\n"


@pytest.mark.skipif(not os.path.exists("/proc/locks"), reason="the kernel does not show locks")
def test_gevents_late_close_takes_no_lock_away_from_sqlite(path: Path) -> None:
    # Closing any descriptor of a file releases all locks of the process on it (POSIX).
    output = run("tests.apps.sqlite_file", "locks_under_gevent", f"sqlite:///{path}")
    assert output == "['READ']\n"


def test_a_lock_held_for_too_long_is_said(
    broker: Broker, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = broker.tip()
    monkeypatch.setattr("ssekit.brokers.sqlite.transactions._PATIENCE", 0.2)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(BrokerUnavailable, match="locked by another process") as raised:
        broker.append("news", body("x"))
    assert not raised.value.maybe_stored
    other.close()
    assert broker.tip() == start


def test_a_publisher_that_is_killed_leaves_a_whole_log(broker: Broker, path: Path) -> None:
    start = broker.tip()
    for _ in range(5):
        with subprocess.Popen(
            [*PROGRAM, "publish_until_killed", f"sqlite:///{path}"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
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
    before = broker.append("news", body("before")).id
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(broker.follow, before, 20)
        until_asleep(pool)
        shutil.rmtree(folder)
        with pytest.raises(BrokerUnavailable, match="No such file"):
            waiting.result(20)
    for _ in range(2):
        with pytest.raises(BrokerUnavailable, match="No such file") as raised:
            broker.append("news", body("lost"))
        assert not raised.value.maybe_stored
    folder.touch()  # a file where the folder was
    with pytest.raises(BrokerUnavailable, match="Not a directory"):
        broker.append("news", body("lost"))
    folder.unlink()
    folder.mkdir()
    start = broker.tip()
    sent = broker.append("news", body("after"))
    assert everything(broker, start, "news") == [sent]
    with pytest.raises(HistoryLost):
        broker.read(["news"], before, 10)
    shutil.rmtree(folder)
    broker.close()


def test_a_fork_waits_for_the_end_of_another_threads_transaction(path: Path) -> None:
    url = f"sqlite:///{path}"
    assert run("tests.apps.sqlite_file", "fork_beside_a_transaction", url).split() == ["0", "4"]


@pytest.mark.parametrize("where", ["in a transaction", "alone"])
def test_a_child_forked_inside_a_publish_leaves_it_alone(path: Path, where: str) -> None:
    output = run("tests.apps.sqlite_file", "fork_inside_a_publish", f"sqlite:///{path}", where)
    assert output.splitlines() == [
        "the child: False True",
        "and then: True",
        "the parent: ['before', 'interrupted', 'after']",
        "('ok',)",
    ]


@pytest.mark.parametrize("parent", ["ends", "closes its hub"])
def test_a_child_keeps_its_log_when_its_parent_is_gone(path: Path, parent: str) -> None:
    url = f"sqlite:///{path}"
    with subprocess.Popen(
        [*PROGRAM, "keep_the_log_of_a_parent", url, parent],
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
            ids.append(other.append("news", body("another's")).id)
            other.close()
    assert [parse_id(one)[1] for one in ids] == [1, 2, 3, 4, 5, 6, 7]
    broker = connect(url)
    assert len(everything(broker, f"{parse_id(ids[0])[0]}-0", "news")) == 7
    broker.close()


Call = Callable[[Broker], object]

LOOKING: dict[str, Call] = {
    "read": lambda broker: broker.read(["news"], "1-1", 10),
    "follow": lambda broker: broker.follow("1-1", 0.01),
    "history before": lambda broker: broker.history(["news"], 10, "1-1"),
    "history": lambda broker: broker.history(["news"], 10, None),
    "ends": lambda broker: broker.ends(["news"]),
    "status": lambda broker: broker.status("news"),
    "retention": lambda broker: broker.retention(),
    "leases": lambda broker: broker.leases(),
    "held": lambda broker: broker.held("holder"),
    "remove": lambda broker: broker.remove("news", "k", REMOVED),
    "reopen": lambda broker: broker.reopen("news"),
    "leave": lambda broker: broker.leave({("\0members", "ann"): REMOVED}, "holder"),
    "beat": lambda broker: broker.beat("holder"),
    "end_lease": lambda broker: broker.end_lease("holder", 1),
}
CREATING: dict[str, Call] = {
    "append": lambda broker: broker.append("news", body("x")),
    "finish": lambda broker: broker.finish("news", END, "finished"),
    "first beat": lambda broker: broker.beat("holder", first=True),
    "tip": lambda broker: broker.tip(),
    "recent": lambda broker: broker.recent(1),
    "opening": lambda broker: broker.opening(["news"], 1),
}


def contents(folder: Path) -> dict[str, bytes | None]:
    """What is in a folder, byte for byte; folders in it as None."""
    return {file.name: file.read_bytes() if file.is_file() else None for file in folder.iterdir()}


@pytest.mark.parametrize("place", ["nothing", "an empty file"])
def test_what_only_looks_creates_nothing(path: Path, broker: Broker, place: str) -> None:
    if place == "an empty file":
        path.touch()
    before = contents(path.parent)
    for name, call in LOOKING.items():
        if name in ("read", "follow", "history before"):
            with pytest.raises(HistoryLost):
                call(broker)
        else:
            nothing: tuple[object, ...] = ([], {}, None, False, ("open", None), Retention())
            assert call(broker) in (nothing if name != "end_lease" else (True,)), name
        assert contents(path.parent) == before, name


@pytest.mark.parametrize("place", ["nothing", "an empty file"])
def test_what_writes_or_tells_the_end_creates_a_log_in_an_empty_place(
    path: Path, place: str
) -> None:
    for call in CREATING.values():
        delete(path, "", "-wal", "-shm")
        if place == "an empty file":
            path.touch()
        one, two = connect(f"sqlite:///{path}"), connect(f"sqlite:///{path}")
        call(one)
        assert two.tip() == one.tip()
        one.close()
        two.close()


def a_database(path: Path, *, wal: bool, tables: bool) -> None:
    """Leave a database of something else, in WAL mode with what its writer did not write back."""
    db = sqlite3.connect(path, isolation_level=None)
    if wal:
        db.execute("PRAGMA journal_mode = WAL")
    db.execute("CREATE TABLE entry (mine)")
    db.execute("INSERT INTO entry VALUES (1)")
    if not tables:
        db.execute("DROP TABLE entry")
    copies = [(file, file.read_bytes()) for file in path.parent.iterdir()]
    db.close()
    for file, content in copies:
        file.write_bytes(content)


def an_unfinished_transaction(path: Path) -> None:
    """Leave a database of something else with a journal that SQLite would roll back."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("CREATE TABLE mine (n)")
    db.executemany("INSERT INTO mine VALUES (?)", [("x" * 1000,)] * 100)
    db.execute("PRAGMA cache_size = 1")
    db.execute("BEGIN")
    db.execute("UPDATE mine SET n = 'y'")
    copies = [(file, file.read_bytes()) for file in path.parent.iterdir()]
    assert len(copies) == 2
    db.execute("ROLLBACK")
    db.close()
    for file, content in copies:
        file.write_bytes(content)


FOREIGN: dict[str, Callable[[Path], object]] = {
    "a database": lambda path: a_database(path, wal=False, tables=True),
    "a database without tables": lambda path: a_database(path, wal=False, tables=False),
    "a database in WAL mode": lambda path: a_database(path, wal=True, tables=True),
    "an unfinished transaction": an_unfinished_transaction,
    "a text": lambda path: path.write_bytes(b"not a database at all\n" * 100),
    "a short text": lambda path: path.write_bytes(b"x"),
    "a folder": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
}


@pytest.mark.parametrize("what", FOREIGN)
def test_what_is_somebody_elses_is_refused_and_left_alone(
    path: Path, broker: Broker, what: str
) -> None:
    FOREIGN[what](path)
    before = contents(path.parent)
    for name, call in {**LOOKING, **CREATING}.items():
        with pytest.raises(BrokerUnavailable, match="name another") as raised:
            call(broker)
        assert not raised.value.maybe_stored, name
        assert contents(path.parent) == before, name


def test_a_file_that_another_process_is_just_making_is_looked_at_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = path.with_name("made")
    other = connect(f"sqlite:///{made}")
    other.append("news", body("x"))
    other.close()
    path.write_bytes(b"half of a header".ljust(4096, b"\0"))
    monkeypatch.setattr(place.time, "sleep", lambda _: shutil.copy(made, path))
    assert place.holds_log(str(path))


def test_a_file_of_another_version_is_refused_and_left_alone(path: Path) -> None:
    other = connect(f"sqlite:///{path}")
    other.append("news", body("x"))
    other.close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    before = contents(path.parent)
    broker = connect(f"sqlite:///{path}")
    for name, call in {**LOOKING, **CREATING}.items():
        with pytest.raises(BrokerUnavailable, match=r"another version .*version 99.*delete"):
            call(broker)
        assert contents(path.parent) == before, name


def lose_a_table(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("DROP TABLE channel")
    db.close()


def lose_the_row(path: Path) -> None:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("DELETE FROM log")
    db.close()


def overwrite(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"\xff" * (len(content) - 100))


DAMAGE = {"a table": lose_a_table, "the row of the log": lose_the_row, "its pages": overwrite}


@pytest.mark.parametrize("lost", DAMAGE)
def test_only_a_publish_begins_a_damaged_log_anew(path: Path, lost: str) -> None:
    path.touch()
    path.chmod(0o660)
    first = connect(f"sqlite:///{path}")
    before = first.append("news", body("x")).id
    first.close()
    DAMAGE[lost](path)
    inode, content = path.stat().st_ino, path.read_bytes()
    broker = connect(f"sqlite:///{path}")
    told = []
    for name, call in {**LOOKING, **CREATING}.items():
        if name != "append":
            try:
                call(broker)
            except BrokerUnavailable as error:
                told.append(str(error))
            except HistoryLost:
                pass
            assert path.stat().st_ino == inode, name
    assert any("damaged" in text and "next publish starts a new log" in text for text in told)
    if lost == "its pages":
        assert path.read_bytes() == content
    sent = broker.append("news", body("anew"))
    assert parse_id(sent.id)[0] > parse_id(before)[0]
    assert broker.history(["news"], 10, None) == [sent]
    assert mode(path) == 0o660
    broker.close()


def test_who_follows_a_damaged_log_learns_that_it_began_anew(path: Path) -> None:
    follower, publisher = connect(f"sqlite:///{path}"), connect(f"sqlite:///{path}")
    before = publisher.append("news", body("x")).id
    assert follower.follow(before, 0.01) == ([], before)
    lose_the_row(path)
    with pytest.raises(BrokerUnavailable, match="damaged"):
        follower.follow(before, 5)
    sent = publisher.append("news", body("anew"))
    with pytest.raises(HistoryLost):
        follower.follow(before, 5)
    assert follower.tip() == sent.id
    follower.close()
    publisher.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can play two users")
class TestOtherUsers:
    NOBODY, SOMEBODY = 65534, 12345

    @pytest.fixture
    def everybodys(self) -> Iterator[Path]:
        """A folder like /tmp, with nothing of root's alone above it."""
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o1777)
            yield Path(folder)

    def test_a_link_that_another_user_planted_is_not_followed(self, everybodys: Path) -> None:
        (everybodys / "roots").mkdir()
        target = everybodys / "roots" / "target.db"
        link, folder_link = everybodys / "hub.db", everybodys / "folder"
        link.symlink_to(target)
        folder_link.symlink_to(everybodys / "roots")
        Path(f"{target}-wal").write_bytes(b"precious")
        for one in (link, folder_link):
            os.chown(one, self.SOMEBODY, -1, follow_symlinks=False)
        for name in (link, folder_link / "hub.db"):
            broker = connect(f"sqlite:///{name}")
            for call in (broker.tip, lambda b=broker: b.append("news", body("x"))):
                with pytest.raises(BrokerUnavailable, match=r"link .*another user \(uid 12345\)"):
                    call()
            broker.close()
        assert contents(everybodys / "roots") == {"target.db-wal": b"precious"}

    def test_a_link_of_roots_or_ones_own_is_followed(self, everybodys: Path) -> None:
        (everybodys / "own").mkdir()
        os.chown(everybodys / "own", self.SOMEBODY, -1)
        for owner in (0, self.SOMEBODY):
            link = everybodys / f"link of {owner}"
            link.symlink_to(everybodys / "own" / "hub.db")
            os.chown(link, owner, -1, follow_symlinks=False)
        urls = [f"sqlite:///{everybodys}/link of {owner}" for owner in (0, self.SOMEBODY)]
        output = run("tests.apps.sqlite_file", "in_another_users_hands", "12345", *urls)
        assert output.splitlines() == ["published"] * 2

    def test_a_link_made_while_the_log_is_in_use_is_not_followed(self, everybodys: Path) -> None:
        path = everybodys / "hub.db"
        broker = connect(f"sqlite:///{path}")
        broker.append("news", body("x"))
        path.unlink()
        path.symlink_to(everybodys / "target.db")
        os.chown(path, self.SOMEBODY, -1, follow_symlinks=False)
        with pytest.raises(BrokerUnavailable, match="another user"):
            broker.append("news", body("x"))
        assert not (everybodys / "target.db").exists()
        broker.close()

    def test_another_users_file_in_a_folder_of_everybodys_is_not_used(
        self, everybodys: Path
    ) -> None:
        path = everybodys / "hub.db"
        path.touch()
        path.chmod(0o666)
        os.chown(path, self.SOMEBODY, -1)
        broker = connect(f"sqlite:///{path}")
        with pytest.raises(BrokerUnavailable, match="folder of your own"):
            broker.append("news", body("x"))
        assert path.read_bytes() == b""
        os.chown(path, 0, -1)
        broker.append("news", body("x"))
        url = f"sqlite:///{path}"
        output = run("tests.apps.sqlite_file", "in_another_users_hands", "12345", url)
        assert output == "published\n"  # the file of root, who owns the folder
        broker.close()


def test_a_link_that_leads_to_itself_is_said(path: Path, broker: Broker) -> None:
    path.symlink_to(path)
    with pytest.raises(BrokerUnavailable, match="symbolic links"):
        broker.append("news", body("x"))


def test_a_notification_that_interrupts_another_still_wakes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower, publisher = connect(f"sqlite:///{path}"), connect(f"sqlite:///{path}")
    tip = follower.tip()
    others = publisher._others  # type: ignore[attr-defined]
    notify_one = others._notify_one
    inside: list[int] = []

    def interrupted(*arguments: Any) -> None:
        if not inside:
            inside.append(1)
            publisher.append("news", body("interrupting"))  # as a signal handler would
        notify_one(*arguments)

    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(follower.follow, tip, 20)
        until(lambda: Path(f"{path}-wake").exists() and any(Path(f"{path}-wake").iterdir()))
        monkeypatch.setattr(others, "_notify_one", interrupted)
        started = time.monotonic()
        publisher.append("news", body("interrupted"))
        assert waiting.result()[0]
    assert time.monotonic() - started < 0.8  # a look without a wake-up comes after a second
    assert len(followed(follower, tip, 2)) == 2
    follower.close()
    publisher.close()


@pytest.mark.parametrize("key", [None, "k"])
def test_close_may_interrupt_a_call(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    broker.append("news", body("before"))
    insert = appending.insert

    def interrupted(*arguments: Any, **options: Any) -> Entry:
        broker.close()  # as a signal handler would
        return insert(*arguments, **options)

    monkeypatch.setattr(appending, "insert", interrupted)
    assert broker.append("news", body("interrupted"), key=key).id
    with pytest.raises(HubClosed):
        broker.tip()
    assert broker._log._file is None  # type: ignore[attr-defined]


def test_an_ordinary_append_stores_its_entry_and_nothing_else(broker: Broker) -> None:
    broker.append("prices", body(0), key="EURUSD")
    for channel in ("news", "prices"):
        broker.append(channel, body("is known from now on"))
    said: list[str] = []
    broker._log._file.connection.set_trace_callback(said.append)  # type: ignore[attr-defined]
    for n in range(300):
        broker.append("news", body(n))
        broker.append("news", body(n), passing=True)
        broker.append("prices", body(n), key="EURUSD")
    # PRAGMA data_version and INSERT; of a key also BEGIN, a SELECT, an UPDATE, and COMMIT.
    assert len(said) < 900 * 2 + 300 * 4 + 300


def test_an_append_that_another_process_has_overtaken_comes_after_it(
    broker: Broker, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = connect(f"sqlite:///{path}")
    sent = [broker.append("news", body(n)) for n in range(3)]
    insert = appending.insert

    def overtaken(*arguments: Any, **options: Any) -> Entry:
        monkeypatch.setattr(appending, "insert", insert)
        sent.append(other.append("news", body("the other's")))
        return insert(*arguments, **options)

    monkeypatch.setattr(appending, "insert", overtaken)
    sent += [broker.append("news", body(n)) for n in range(3, 5)]
    assert [parse_id(entry.id)[1] for entry in sent] == [1, 2, 3, 4, 5, 6]
    assert everything(broker, f"{parse_id(sent[0].id)[0]}-0", "news") == sent
    other.close()


def test_nothing_of_a_transaction_that_fails_is_remembered(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = [broker.append("news", body(n)) for n in range(3)]
    start = broker.tip()
    with monkeypatch.context() as interrupting:
        interrupting.setattr(Writer, "done", interrupted)
        with pytest.raises(KeyboardInterrupt):
            broker.append("news", body("never stored"), key="k")
    sent += [broker.append("news", body(n)) for n in range(3, 6)]
    assert [parse_id(entry.id)[1] for entry in sent] == [1, 2, 3, 4, 5, 6]
    assert everything(broker, start, "news") == sent[3:]


def interrupted(_: Writer) -> None:
    raise KeyboardInterrupt


def test_processes_that_store_a_few_events_each_leave_none_uncounted(path: Path) -> None:
    retention = Retention(history=20)
    for _ in range(30):
        broker = connect(f"sqlite:///{path}", retention)
        for n in range(3):
            broker.append("news", body(n))
        broker.close()
    broker = connect(f"sqlite:///{path}")
    assert 20 <= len(broker.history(["news"], 1000, None)) < 40
    broker.close()


def test_the_longest_channel_may_have_expired_when_it_is_to_give_up_its_oldest(path: Path) -> None:
    broker = connect(f"sqlite:///{path}", Retention(history=5, capacity=5, max_age=1))
    for n in range(5):
        broker.append("old", body(n))
    time.sleep(1.1)  # an age, not luck
    sent = [broker.append(f"channel {n}", body(n)) for n in range(7)]
    assert [broker.history([e.channel], 1, None) for e in sent[-5:]] == [[e] for e in sent[-5:]]
    broker.close()


def test_close_in_a_forked_child_leaves_the_parents_wakeups(path: Path) -> None:
    follower, publisher = connect(f"sqlite:///{path}"), connect(f"sqlite:///{path}")
    tip = follower.tip()
    follower.follow(tip, 0.01)
    names = sorted(file.name for file in Path(f"{path}-wake").iterdir())
    assert names
    pid = os.fork()
    if not pid:
        try:
            follower.close()
            publisher.close()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert sorted(file.name for file in Path(f"{path}-wake").iterdir()) == names
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(follower.follow, tip, 20)
        time.sleep(0.05)
        started = time.monotonic()
        publisher.append("news", body("x"))
        assert waiting.result()[0]
    assert time.monotonic() - started < 0.8
    follower.close()
    publisher.close()


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
    other.append("news", body("x"))
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
            two.append("news", body(n))
            _, cursor = waiting.result()
    assert time.monotonic() - started < 5
    one.close()
    two.close()


def test_without_wake_ups_a_follower_looks_now_and_then(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = (connect(f"sqlite:///{path}") for _ in range(2))
    tip = one.tip()
    Path(f"{path}-wake").touch()  # in the way
    with caplog.at_level(logging.WARNING), ThreadPoolExecutor() as pool:
        for n in range(3):
            waiting = pool.submit(one.follow, tip, 20)
            until_asleep(pool)
            tip = two.append("news", body(n)).id
            assert [entry.id for entry in waiting.result(20)[0]] == [tip]
    assert [record.name for record in caplog.records] == ["ssekit.brokers"] * 2  # each once
    delete(path, "-wake")
    started = time.monotonic()
    with ThreadPoolExecutor() as pool:
        for n in range(20):
            waiting = pool.submit(one.follow, tip, 20)
            until_asleep(pool)
            tip = two.append("news", body(n)).id
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
    broker.append("news", body("x"))
    assert len(followed(broker, start, 1)) == 1
    assert list(Path(f"{path}-wake").iterdir()) == []
    assert "somebody else's folder" in caplog.text
    broker.close()


def test_the_file_does_not_grow_without_bound(path: Path) -> None:
    broker = connect(f"sqlite:///{path}", Retention(history=10))

    def size() -> int:
        return sum(entry.stat().st_size for entry in path.parent.iterdir() if entry.is_file())

    for n in range(1200):
        broker.append(f"channel {n % 10}", body("x" * 1000))
    small = size()
    assert small < 10_000_000
    for _ in range(100):
        broker.append("large", body("x" * 200_000))
    large = size()
    for _ in range(20):
        broker.append("large", body("small"))  # and the large ones are trimmed
    for n in range(3500):
        broker.append(f"channel {n % 10}", body("x" * 1000))
    assert size() < max(small, large // 4)
    broker.close()


def test_a_path_may_have_what_a_url_must_quote(tmp_path: Path) -> None:
    broker = connect(f"sqlite:///{tmp_path}/a%20b%3Fc%25.db")
    broker.append("news", body("x"))
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
    before = [broker.append("news", body(n)) for n in range(3)]
    epoch, _ = parse_id(start)
    with monkeypatch.context() as another_boot:
        another_boot.setattr("ssekit.brokers.sqlite.epochs.boot_of_machine", lambda: "another")
        assert broker.tip() == before[-1].id
        after = [broker.append("news", body(n)) for n in range(2)]
    new, seq = parse_id(after[0].id)
    assert new > epoch
    assert seq == 4
    assert everything(broker, start, "news", limit=2) == before + after
    assert (broker.follow(before[1].id, 1)[0]) == [before[2], *after]
    assert (broker.follow(before[2].id, 1)[0]) == after
    for undone in (f"{epoch}-4", f"{epoch}-5"):
        with pytest.raises(HistoryLost):
            broker.read(["news"], undone, 10)
        with pytest.raises(HistoryLost):
            broker.follow(undone, 1)
    # The machine's next run is this one again, as far as the log can tell.
    last = broker.append("news", body("last"))
    assert parse_id(last.id) > (new, 5)
    assert everything(broker, before[0].id, "news") == [*before[1:], *after, last]


def test_a_wake_up_that_is_made_while_the_log_is_closed_warns_of_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / ("long" * 25)  # so that sockets are bound by way of the descriptor
    folder.mkdir()
    (folder / "log.db").touch()
    others = OtherProcesses(str(folder / "log.db"))
    bind = others.bind

    def closing(socket: Any) -> Any:
        bound = bind(socket)
        others.close()
        reused.append(os.open(os.devnull, os.O_RDONLY))  # the folder's number
        return bound

    reused: list[int] = []
    monkeypatch.setattr(others, "bind", closing)
    assert not others.wakeup().usable()
    os.close(reused[0])
    assert not caplog.records
