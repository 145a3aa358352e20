"""State in a page, then live: nothing that changes in between is missed.

    gunicorn -k gevent --workers 2 position:app

The position in the log is taken before the state is read, and rendered with it.  The stream begins
after that position, however late the page asks for it: it may come from a cache.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from flask import Flask, render_template

from ssekit import Hub
from ssekit.hub import default_url
from ssekit.stream import Stream

app = Flask(__name__, template_folder=".")
hub = Hub(default_url())

DATABASE = os.environ.get("DATABASE", "votes.db")


@contextmanager
def database() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(DATABASE, timeout=30)) as connection, connection:
        connection.execute("CREATE TABLE IF NOT EXISTS votes (drink TEXT PRIMARY KEY, count INT)")
        yield connection


def read() -> dict[str, int]:
    """Return the state: how many votes each drink has."""
    with database() as connection:
        votes = dict(connection.execute("SELECT drink, count FROM votes"))
    return {"tea": 0, "coffee": 0, **votes}


def count(drink: str) -> int:
    """Count a vote, commit it, and return how many the drink has now."""
    one_more = (
        "INSERT INTO votes VALUES (?, 1) ON CONFLICT DO UPDATE SET count = count + 1"
        " RETURNING count"
    )
    with database() as connection:
        (votes,) = connection.execute(one_more, [drink]).fetchone()
    return int(votes)


@app.get("/")
def page() -> str:
    position = hub.position()  # first: what is committed from here on comes by the stream
    return render_template("position.html", position=position, votes=read())


@app.get("/events")
def events() -> Stream:
    return hub.stream("votes")


@app.post("/votes/<any(tea, coffee):drink>")
def vote(drink: str) -> tuple[str, int]:
    # After the commit, and the number itself: it may be in a page's state already, and seeing it
    # twice does no harm.  The greater one is the newer, whichever is published first.
    hub.publish("votes", {"drink": drink, "votes": count(drink)})
    return "", 204
