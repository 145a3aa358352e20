"""The page of `job.py`: a progress bar, and a button that cancels the job.

    gunicorn -k gevent job_page:app

http://127.0.0.1:8000/jobs/report-7 shows that job, before, while and after it runs.
"""

from __future__ import annotations

from flask import Flask, Response, send_file
from werkzeug.routing import BaseConverter

from ssekit import Hub
from ssekit.hub import default_url
from ssekit.stream import Stream

app = Flask(__name__)
hub = Hub(default_url())


class Name(BaseConverter):
    """What a job may be called; a channel's name has no control characters and no ``*``."""

    regex = r"[\w-]{1,64}"


app.url_map.converters["name"] = Name


@app.get("/jobs/<name:name>")
def page(name: str) -> Response:
    return send_file("job.html")


@app.get("/jobs/<name:name>/events")
def events(name: str) -> Stream:
    return hub.stream(f"job/{name}")


@app.post("/jobs/<name:name>/cancel")
def cancel(name: str) -> tuple[str, int]:
    if hub.status(f"job/{name}").state == "producing":
        hub.cancel(f"job/{name}")
    return "", 204
