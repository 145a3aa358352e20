"""Fork beside an open hub: parent and child both go on publishing and reading."""

from __future__ import annotations

import os
import sys
from itertools import islice

from ssekit import Hub

hub = Hub(sys.argv[1])
mine = hub.subscribe("news")
next(mine)
hub.publish("news", "before")
assert next(mine).data == "before"
pid = os.fork()
if not pid:
    theirs = hub.subscribe("news")
    assert next(theirs).event == "stream-open"
    hub.publish("news", "child")
    assert next(theirs).data == "child"
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
hub.publish("news", "parent")
got = [event.data for event in islice(mine, 1 if sys.argv[1] == "memory:" else 2)]
assert got[-1] == "parent", got
hub.close()
print("well")
