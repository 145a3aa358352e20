"""Publishes with Django's connection, as a view does: URL

Prints what is in the log after each step, without looking at the outbox.
"""

from __future__ import annotations

import sys
from contextlib import suppress

import django
import psycopg
from django.conf import settings

from ssekit.brokers import connect
from ssekit.brokers.postgresql.broker import PostgreSQLBroker
from tests.logs import body, data

url = sys.argv[1]
options = psycopg.conninfo.conninfo_to_dict(url)
settings.configure(
    USE_TZ=True,
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": options["dbname"],
            "USER": options["user"],
            "HOST": options["host"],
            "PORT": options["port"],
        }
    },
)
django.setup()

from django.db import connection, transaction

broker = connect(url)
assert isinstance(broker, PostgreSQLBroker)
start = broker.tip()


def publish(sent: str) -> None:
    assert isinstance(broker, PostgreSQLBroker)
    broker.append_in(connection, "news", body(sent))


def show(step: str) -> None:
    print(step, *data(broker.read(["news"], start, 10)[0]), sep=": ", flush=True)


try:
    publish("refused")
except ValueError as error:
    print("autocommit" in str(error))
with suppress(ZeroDivisionError), transaction.atomic():
    publish("rolled back")
    raise ZeroDivisionError
show("after a rollback")
with transaction.atomic():
    publish("one")
    with suppress(ZeroDivisionError), transaction.atomic():
        publish("rolled back, too")
        raise ZeroDivisionError
    with transaction.atomic():
        publish("two")
    show("before the commit")
show("after the commit")
connection.close()
broker.close()
