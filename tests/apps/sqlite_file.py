"""What other processes do to a ``sqlite:`` file, each a function: NAME URL..."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import sys
import threading
import time
import warnings
from types import FrameType
from typing import Any

from ssekit import BrokerUnavailable
from ssekit.brokers import Entry, Retention, connect
from ssekit.brokers.sqlite import appending
from ssekit.brokers.sqlite.broker import SQLiteBroker  # before rights are given up
from ssekit.brokers.sqlite.writing import Writer
from tests.logs import body, data


def publish_for(url: str, seconds: str) -> None:
    broker = connect(url)
    end = time.time() + float(seconds)
    while time.time() < end:
        broker.append("news", body("x" * 1000))


def publish_until_killed(url: str) -> None:
    broker = connect(url)
    while True:
        print(broker.append("news", body("x")).id, flush=True)


def on_a_full_disk(url: str) -> None:
    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    broker = connect(url)
    start = broker.tip()
    broker.append("news", body("before"))
    limit(150_000)
    stored, refused = 1, 0
    while refused < 5:
        try:
            broker.append("news", body("x" * 1000))
            stored += 1
        except BrokerUnavailable as error:
            print(error.maybe_stored, url.removeprefix("sqlite:///") in str(error))
            refused += 1
    entries, cursor = broker.follow(start, 1)
    print(stored > 10, len(entries) == stored, broker.tip() == cursor)
    limit(resource.RLIM_INFINITY)
    broker.append("news", body("after"))
    print(data(broker.follow(cursor, 1)[0]))
    broker.close()


def without_rights(*urls: str) -> None:
    if os.geteuid() == 0:
        os.setuid(65534)
    for url in urls:
        try:
            SQLiteBroker.from_url(url, Retention()).append("news", body("x"))
        except BrokerUnavailable as error:
            print(error.maybe_stored, url.removeprefix("sqlite:///") in str(error))


def in_another_users_hands(uid: str, *urls: str) -> None:
    """Say what each place is to a program of another user."""
    os.setuid(int(uid))
    for url in urls:
        try:
            SQLiteBroker.from_url(url, Retention()).append("news", body("x"))
        except BrokerUnavailable as error:
            print(error)
        else:
            print("published")


def fork_beside_a_transaction(url: str) -> None:
    warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside a thread is the point
    broker = connect(url)
    broker.append("news", body("before"))
    inside, done = threading.Event(), Writer.done

    def slowly(writer: Writer) -> None:
        done(writer)
        inside.set()
        time.sleep(0.3)

    Writer.done = slowly  # type: ignore[method-assign]
    slow = threading.Thread(target=broker.append, args=("news", body("slow")), kwargs={"key": "k"})
    slow.start()
    inside.wait()
    Writer.done = done  # type: ignore[method-assign]
    if not os.fork():
        broker.append("news", body("the child's"))
        os._exit(0)
    print(os.wait()[1])
    slow.join()
    print(broker.append("news", body("after")).id.partition("-")[2])
    broker.close()


def fork_inside_a_publish(url: str, where: str) -> None:
    """A signal handler forks: before the end of a transaction, or before an INSERT alone."""
    broker = connect(url)
    for data_before in ("old", "before"):
        broker.append("news", body(data_before))
    done, insert, pids = Writer.done, appending.insert, []

    def fork(number: int, frame: FrameType | None) -> None:
        pids.append(os.fork())
        if not pids[0]:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def in_a_transaction(writer: Writer) -> None:
        done(writer)
        signal.raise_signal(signal.SIGALRM)

    def alone(*arguments: Any, **options: Any) -> Entry:
        signal.raise_signal(signal.SIGALRM)
        return insert(*arguments, **options)

    signal.signal(signal.SIGALRM, fork)
    if where == "in a transaction":
        broker._log._file.known = None  # type: ignore[attr-defined]
        Writer.done = in_a_transaction  # type: ignore[method-assign]
    else:
        appending.insert = alone
    try:
        entry: Entry | None = broker.append("news", body("interrupted"))
    except BrokerUnavailable as error:
        entry = None
        print("the child:", error.maybe_stored, "forked" in str(error), flush=True)
    Writer.done = done  # type: ignore[method-assign]
    appending.insert = insert
    if not pids[0]:
        assert entry is None
        try:
            broker.tip()
        except BrokerUnavailable as error:
            print("and then:", "forked" in str(error), flush=True)
        broker.close()
        os._exit(0)
    assert entry is not None
    assert os.wait()[1] == 0
    broker.append("news", body("after"))
    print("the parent:", data(broker.history(["news"], 3, None)))
    broker.close()
    db = sqlite3.connect(url.removeprefix("sqlite:///"))
    print(db.execute("PRAGMA integrity_check").fetchone())


def keep_the_log_of_a_parent(url: str, parent: str) -> None:
    broker = connect(url)
    print(broker.append("news", body("the parent's")).id, flush=True)
    if os.fork():
        if parent == "ends":
            os._exit(0)
        broker.close()
        os.wait()
        os._exit(0)
    for _ in sys.stdin:
        print(broker.append("news", body("the child's")).id, flush=True)
    os._exit(0)


def locks_under_gevent(url: str) -> None:
    """Say which locks the process has on a log that it has just created."""
    import gevent.monkey

    gevent.monkey.patch_all()
    import gevent
    import gevent.os

    gevent.os._NO_DEFER_REG_FILE = False  # it spares regular files now, and says that it may not
    gevent.sleep(0)  # there is an event loop from now on
    broker = connect(url)
    broker.tip()
    gevent.sleep(0.05)  # what gevent puts off until the event loop's next turn has happened
    inode = os.stat(url.removeprefix("sqlite:///")).st_ino
    with open("/proc/locks") as locks:
        own = [lock.split() for lock in locks if f":{inode} " in lock and str(os.getpid()) in lock]
    print([lock[3] for lock in own])
    broker.close()


def beside_a_lock(url: str) -> None:
    import gevent.monkey

    gevent.monkey.patch_all()
    import gevent

    other = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    broker = connect(url)
    start = broker.tip()
    publishing = [gevent.spawn(broker.append, "news", body(n)) for n in range(5)]
    gaps: list[float] = []
    last = time.monotonic()
    while sum(gaps) < 1:
        gevent.sleep(0.005)
        gaps.append(time.monotonic() - last)
        last += gaps[-1]
    assert broker.read(["news"], start, 10) == ([], start)
    assert not any(one.ready() for one in publishing)
    other.execute("ROLLBACK")
    gevent.joinall(publishing, raise_error=True)
    print(sorted(gaps)[len(gaps) // 2] < 0.05, len(broker.read(["news"], start, 10)[0]))
    other.close()
    broker.close()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
