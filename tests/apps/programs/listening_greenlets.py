"""Listen to an address in many greenlets, and close the streams."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()
import sys

import gevent

from ssekit.client import listen

streams = [listen(sys.argv[1]) for _ in range(20)]
got = [gevent.spawn(list, stream) for stream in streams]
one = [gevent.spawn(next, listen(sys.argv[1])) for _ in range(20)]
gevent.joinall(one, timeout=10)
assert all(greenlet.value.data == "x" for greenlet in one), one
for stream in streams:
    stream.close()
gevent.joinall(got, timeout=10)
assert all(len(greenlet.value) == 1 for greenlet in got), got
