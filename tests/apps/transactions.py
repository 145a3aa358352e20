"""Publishes in transactions that take a while, as many as the table ``done`` then has.

URL CHANNEL COUNT LONGEST: the longest pause within a transaction is in seconds.
"""

from __future__ import annotations

import random
import sys
import time

import psycopg

from ssekit.brokers import connect
from ssekit.brokers.postgresql.broker import PostgreSQLBroker
from tests.logs import body

url, channel, count, longest = sys.argv[1:]
broker = connect(url)
assert isinstance(broker, PostgreSQLBroker)
with psycopg.connect(url.partition("?")[0]) as connection:
    for n in range(int(count)):
        for part in ("a", "b"):
            broker.append_in(connection, channel, body(f"{n}{part}"))
            time.sleep(random.uniform(0, float(longest)))
        if n % 10 == 9:
            connection.rollback()
            continue
        connection.execute("INSERT INTO done VALUES (%s, %s)", (channel, n))
        connection.commit()
broker.close()
