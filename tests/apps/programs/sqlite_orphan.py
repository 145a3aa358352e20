"""Fork beside a log; the child goes on with it when its parent has ended or closed it."""

from __future__ import annotations

import os
import sys

from ssekit import Event
from ssekit.brokers import connect

url, parent = sys.argv[1:]
broker = connect(url)
print(broker.append("news", Event("the parent's")).id, flush=True)
if os.fork():
    if parent == "ends":
        os._exit(0)
    broker.close()
    os.wait()
    os._exit(0)
for _ in sys.stdin:
    print(broker.append("news", Event("the child's")).id, flush=True)
os._exit(0)
