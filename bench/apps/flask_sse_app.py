"""flask-sse as its documentation has it: its blueprint, and redis between publisher and clients."""

from __future__ import annotations

import os

from flask import Flask, request
from flask_sse import sse  # type: ignore[import-untyped]
from gevent import sleep

from bench.apps.schedule import Schedule

app = Flask(__name__)
app.config["REDIS_URL"] = os.environ["REDIS_URL"]
app.register_blueprint(sse, url_prefix="/events")


@app.get("/publish")
def publish() -> str:
    """Publish each event."""
    schedule = Schedule(request.query_string.decode())
    for wait, sequences in schedule.turns():
        sleep(wait)
        for sequence in sequences:
            sse.publish(schedule.data(sequence), id=f"1750000000000-{sequence}")
    return "ok\n"
