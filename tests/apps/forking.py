"""Forks beside an open log: parent and child each go on by themselves.  URL"""

from __future__ import annotations

import os
import sys
import threading
import warnings

from ssekit import HubClosed
from ssekit.brokers import connect
from tests.logs import body, data

warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside a thread, the point here
url = sys.argv[1]
broker = connect(url)
start = broker.tip()
broker.follow(start, 0.01)
broker.append("news", body("before"))
heard: list[object] = []


def follow() -> None:
    cursor = broker.tip()
    while len(heard) < 2:
        entries, cursor = broker.follow(cursor, 5)
        heard.extend(data(entries) or ["nothing came"])


follower = threading.Thread(target=follow)
if len(sys.argv) > 2:
    follower.start()
pid = os.fork()
if not pid:
    tip = broker.tip()
    assert (tip.split("-")[0] == start.split("-")[0]) is not url.startswith("memory")
    broker.append("news", body("child"))
    entries, _ = broker.follow(tip, 5)
    assert data(entries) == ["child"], entries
    broker.close()
    try:
        broker.tip()
    except HubClosed:
        os._exit(0)
    os._exit(1)
assert os.waitpid(pid, 0)[1] == 0
tip = broker.tip()
broker.append("news", body("parent"))
entries, _ = broker.follow(tip, 5)
assert data(entries) == ["parent"], entries
found = data(broker.read(["news"], start, 10)[0])
assert found in (["before", "parent"], ["before", "child", "parent"]), found
if follower.ident:
    broker.append("news", body("last"))
    follower.join(10)
    assert heard[-1] in ("parent", "last"), heard
    assert not follower.is_alive()
broker.close()
print("both are well")
