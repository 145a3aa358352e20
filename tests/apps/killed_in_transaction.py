"""Publishes in a transaction and is killed: URL WHEN, which is "before", or "after" the commit."""

from __future__ import annotations

import os
import signal
import sys

import psycopg

from ssekit.brokers import connect
from ssekit.brokers.postgresql.broker import PostgreSQLBroker
from tests.logs import body

url, when = sys.argv[1:]
broker = connect(url)
assert isinstance(broker, PostgreSQLBroker)
connection = psycopg.connect(url.partition("?")[0])
broker.append_in(connection, "news", body(when))
if when == "after":
    connection.commit()
os.kill(os.getpid(), signal.SIGKILL)
