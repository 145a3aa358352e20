"""Fork while another thread is in the middle of a transaction."""

from __future__ import annotations

import os
import sys
import threading
import time
import warnings

from ssekit import Event
from ssekit.brokers import connect
from ssekit.brokers.sqlite import log as sqlitelog

warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside a thread is the point
broker = connect(sys.argv[1])
broker.append("news", Event("before"))
append, inside = sqlitelog.append, threading.Event()


def slow(*arguments):
    stored = append(*arguments)
    inside.set()
    time.sleep(0.3)
    return stored


sqlitelog.append = slow
thread = threading.Thread(target=broker.append, args=("news", Event("slow")))
thread.start()
inside.wait()
sqlitelog.append = append
if not os.fork():
    broker.append("news", Event("the child's"))
    os._exit(0)
print(os.wait()[1])
thread.join()
print(broker.append("news", Event("after")).id.partition("-")[2])
broker.close()
