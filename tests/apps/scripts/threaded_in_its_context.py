"""A script that sends from a thread to which it has passed its context."""

from __future__ import annotations

import contextvars
import threading

from ssekit.script import send


def say():
    send("from a thread")


send("first")
thread = threading.Thread(target=contextvars.copy_context().run, args=(say,))
thread.start()
thread.join()
