"""The answers of `tokens.py`, for npm's `ai` and for OpenAI's clients.

    gunicorn -k gevent --workers 2 tokens_api:app

These clients know no hub events, so their streams have none (``hub_events=False``), and are cut
where the server has to end them early: they would take an orderly end for the end of the answer.
"""

from __future__ import annotations

from typing import Any

from flask import Response, abort, request
from tokens import app, begin, hub

from ssekit.stream import Stream

__all__ = ["app"]

UI_MESSAGES = {"x-vercel-ai-ui-message-stream": "v1"}


def stream(answer: str, **options: Any) -> Stream:
    return hub.stream(f"answer/{answer}", replay="all", hub_events=False, **options)


@app.post("/api/chat")
def chat() -> Stream:
    """Answer the last message of a chat; a page that comes back asks `resume` for the answer."""
    message = request.json["messages"][-1]
    answer = begin("".join(part.get("text", "") for part in message["parts"]))
    hub.publish(f"chat/{request.json['id']}", answer)
    return stream(answer, methods=["POST"], headers=UI_MESSAGES)


@app.get("/api/chat/<chat>/stream")
def resume(chat: str) -> Stream | Response:
    """Stream the answer that is being made, from its first part; 204 if there is none."""
    for event in hub.history(f"chat/{chat}", limit=1):
        if hub.status(f"answer/{event.data}").state == "producing":
            return stream(event.data, headers=UI_MESSAGES)
    return Response(status=204)


@app.post("/v1/chat/completions")
def completions() -> Stream:
    """Answer as OpenAI does where ``"stream": true`` is asked for."""
    if not request.json.get("stream"):
        abort(400, "Only streams are answered here.")
    # OpenAI's clients say that they accept JSON alone, and mean a stream of it.
    request.environ["HTTP_ACCEPT"] = "text/event-stream"
    return stream(begin(str(request.json["messages"][-1]["content"])), methods=["POST"])
