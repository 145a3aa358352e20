"""Follows a log forever, and so looks after its outbox: URL"""

from __future__ import annotations

import sys

from ssekit.brokers import connect

broker = connect(sys.argv[1])
cursor = broker.tip()
print("follows", flush=True)
while True:
    cursor = broker.follow(cursor, 60)[1]
