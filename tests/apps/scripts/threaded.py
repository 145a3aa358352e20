"""A script that sends from a thread of its own as well."""

from __future__ import annotations

import threading

from ssekit.script import send


def say():
    send("from a thread")


send("first")
thread = threading.Thread(target=say)
thread.start()
thread.join()
