"""Open a log in memory and one in a file, and print what of other packages that imports."""

from __future__ import annotations

import sys

from ssekit.brokers import connect

for url in ("memory:", sys.argv[1]):
    connect(url).tip()
print({"gevent", "redis", "werkzeug", "greenlet"} & set(sys.modules))
