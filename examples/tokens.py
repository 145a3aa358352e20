"""Tokens of a model, in a page that may be reloaded while they come.

    gunicorn -k gevent --workers 2 tokens:app

The answer belongs to its channel, and no viewer owns it: it goes on while the page is reloaded, a
second tab shows it from its first word, and Stop ends it in whichever worker it is being made.  If
that worker is killed, the channel ends with "lost" within 15 seconds.

`tokens_api.py` gives the same answers to npm's `ai` and to OpenAI's clients.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterator

from flask import Flask, Response, abort, redirect, request, send_file, url_for
from werkzeug.wrappers import Response as Answer

from ssekit import Hub
from ssekit.hub import default_url
from ssekit.stream import Stream

app = Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = 64 * 1024
hub = Hub(default_url())

PAUSE = float(os.environ.get("PAUSE", "0.1"))
TEXT = (
    "you asked, and nobody has to stay for the answer: close this tab, open it again, or send its"
    " address to a friend. Each word is an event in the log, so every viewer gets all of them,"
    " once and in order."
)


def words(question: str) -> Iterator[str]:
    """The model.  With OpenAI's client it would be:

    for chunk in client.chat.completions.create(model=..., messages=[...], stream=True):
        yield chunk.choices[0].delta.content or ""
    """
    for word in f"“{question}”, {TEXT}".split():
        time.sleep(PAUSE)
        yield f"{word} "


def parts(answer: str, question: str) -> Iterator[dict[str, object] | str]:
    """Yield the answer's parts, each in the formats of npm's `ai` and of OpenAI's clients at once.

    Each of them ignores the fields that it does not know, so one channel is enough for both.
    """

    chunk = {"object": "chat.completion.chunk", "created": int(time.time()), "model": "words"}

    def part(kind: str, /, reason: str | None = None, **fields: str) -> dict[str, object]:
        delta = {"content": fields["delta"]} if "delta" in fields else {}
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return {"type": kind, "id": answer, **fields, **chunk, "choices": [choice]}

    yield part("start", messageId=answer)
    yield part("text-start")
    try:
        for word in words(question):
            yield part("text-delta", delta=word)
    except Exception:
        yield {"type": "error", "errorText": "The model failed.", "error": {"message": "failed"}}
        raise  # The channel ends with "failed".
    yield part("text-end")
    yield part("finish", "stop", finishReason="stop")
    yield "[DONE]"


def begin(question: str) -> str:
    """Start an answer in the background of this worker, and return its name, hard to guess."""
    answer = secrets.token_urlsafe(12)
    hub.start(f"answer/{answer}", parts, answer, question)
    return answer


def channel(answer: str) -> str:
    """Return the channel of an answer that was begun."""
    name = f"answer/{answer}"
    if not re.fullmatch(r"[\w-]{1,64}", answer, re.ASCII) or hub.status(name).state == "open":
        abort(404)
    return name


@app.get("/")
@app.get("/answers/<answer>")
def page(answer: str = "") -> Response:
    return send_file("tokens.html")


@app.post("/answers")
def ask() -> Answer:
    return redirect(url_for("page", answer=begin(request.form["question"])), 303)


@app.get("/answers/<answer>/events")
def events(answer: str) -> Stream:
    return hub.stream(channel(answer), replay="all")


@app.post("/answers/<answer>/stop")
def stop(answer: str) -> str:
    return "stopped" if hub.cancel(channel(answer)) else "it had ended"
