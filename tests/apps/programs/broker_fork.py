"""Fork beside an open broker: parent and child both go on publishing and following."""

from __future__ import annotations

import os
import sys

from ssekit import Event
from ssekit.brokers import connect

broker = connect(sys.argv[1])
start = broker.tip()
broker.follow(start, 0.01)
broker.append("news", Event("before"))
pid = os.fork()
if not pid:
    tip = broker.tip()
    assert (tip.split("-")[0] == start.split("-")[0]) is not sys.argv[1].startswith("memory")
    broker.append("news", Event("child"))
    entries, _ = broker.follow(tip, 5)
    assert [entry.event.data for entry in entries] == ["child"], entries
    broker.close()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
tip = broker.tip()
broker.append("news", Event("parent"))
entries, _ = broker.follow(tip, 5)
assert [entry.event.data for entry in entries] == ["parent"], entries
found = [entry.event.data for entry in broker.read(["news"], start, 10)[0]]
assert found in (["before", "parent"], ["before", "child", "parent"]), found
broker.close()
print("both are well")
