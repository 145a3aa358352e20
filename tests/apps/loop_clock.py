"""Prints which loop gevent has, and how long its turn seems to last, at once and after a while."""

from __future__ import annotations

import time

import gevent

from ssekit.host.eventloop import loop_of_process

turn = loop_of_process().turn
gevent.sleep(0.001)
first = turn()
until = time.monotonic() + 0.2
while time.monotonic() < until:
    pass
print(gevent.config.loop.__module__, round(first, 1), round(turn(), 1))
