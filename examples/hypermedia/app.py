"""Messages as fragments of HTML, under htmx 2, htmx 4, Turbo and Datastar.

Each page shows the state, which is in a table, and begins its stream at the log's position from
before it was read: so it misses nothing.  A fragment has an id, by which a page knows a message
that it already shows.

    pip install 'ssekit[server]' flask datastar-py
    ASSETS=node_modules gunicorn -k gevent app:app

ASSETS is a folder with the packages from npm: htmx-2 (``npm:htmx.org@2``), htmx-ext-sse, htmx-4
(``npm:htmx.org@4``), @hotwired/turbo and @starfederation/datastar.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from datastar_py.sse import ServerSentEventGenerator
from flask import Flask, abort, render_template, request, send_from_directory
from markupsafe import Markup
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from ssekit import Event, Hub
from ssekit.browser import files

DATA = Path(os.environ.get("DATA", "."))
ASSETS = Path(os.environ.get("ASSETS", "node_modules")).resolve()
PAGES = ("htmx2", "htmx4", "turbo", "datastar")

hub = Hub(f"sqlite:///{DATA}/hub.db")
app = Flask(__name__)
app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/browser": files})  # type: ignore[method-assign]


def for_htmx(html: str) -> Event:
    return Event(html)


def for_turbo(html: str) -> Event:
    # Turbo puts no element in twice that has the same id.
    return Event(
        '<turbo-stream action="append" target="messages">'
        f"<template>{html}</template></turbo-stream>"
    )


def for_datastar(html: str) -> Event:
    block = ServerSentEventGenerator.merge_fragments(
        html, selector="#messages", merge_mode="append"
    )
    return Event.parse(block)


FORMS: dict[str, Callable[[str], Event]] = {
    "htmx": for_htmx,
    "turbo": for_turbo,
    "datastar": for_datastar,
}
STREAMS = {
    "htmx": hub.stream("messages.htmx"),
    "turbo": hub.stream("messages.turbo"),
    # Datastar shows a page no event but its own.  Without the hub's, lost history is answered 410.
    "datastar": hub.stream("messages.datastar", hub_events=False),
}


def database() -> closing[sqlite3.Connection]:
    connection = sqlite3.connect(DATA / "messages.db")
    connection.execute("CREATE TABLE IF NOT EXISTS message (id INTEGER PRIMARY KEY, text TEXT)")
    return closing(connection)


def fragment(number: int, text: str) -> str:
    return Markup('<li id="message-{}">{}</li>').format(number, text)


@app.get("/<name>")
def page(name: str) -> str:
    if name not in PAGES:
        abort(404)
    position = hub.position()  # before the state is read
    with database() as connection:
        rows = connection.execute("SELECT id, text FROM message ORDER BY id").fetchall()
    messages = [fragment(*row) for row in rows]
    return render_template(f"{name}.html", position=position, messages=messages)


@app.get("/events/<form>")
def events(form: str) -> Any:
    return STREAMS.get(form) or abort(404)


@app.post("/messages")
def say() -> tuple[str, int]:
    with database() as connection, connection:
        text = request.form["text"]
        number = connection.execute("INSERT INTO message (text) VALUES (?)", (text,)).lastrowid
    html = fragment(number or 0, text)
    for form, event_of in FORMS.items():
        event = event_of(html)
        hub.publish(f"messages.{form}", event.data, event.event)
    return "", 204


@app.get("/assets/<path:path>")
def asset(path: str) -> Any:
    return send_from_directory(ASSETS, path)
