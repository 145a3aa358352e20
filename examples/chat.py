"""A chat that shows who is here and who is typing: pip install flask 'ssekit[server]'.

    SECRET_KEY=... ssekit serve examples.chat:app

Messages are events of one channel.  Who is here is presence: the stream of a visitor has a
member.  That somebody is typing is a passing event: it reaches those who are here, and is not kept.
"""

from __future__ import annotations

import os
import secrets
from typing import Any

from flask import Flask, Response, redirect, request, session

from ssekit import Hub

CHANNEL = "chat"

app = Flask(__name__)
app.secret_key = os.environ["SECRET_KEY"]
app.config.update(SESSION_COOKIE_SAMESITE="Lax", MAX_CONTENT_LENGTH=16 * 1024)
hub = Hub(os.environ.get("SSEKIT_URL", "sqlite:///chat.db"))


@app.get("/")
def index() -> str:
    return CHAT if "id" in session else SIGN_IN


@app.post("/sign-in")
def sign_in() -> Any:
    name = request.form["name"].strip()[:40]
    if name:
        session.update(id=secrets.token_urlsafe(9), name=name)
    return redirect("/")


@app.get("/events")
def events() -> Any:
    if "id" not in session:
        return "Sign in first.\n", 401
    member = (session["id"], {"name": session["name"]})
    return hub.stream(CHANNEL, member=member, presence=True, replay=50)


@app.post("/say")
def say() -> Any:
    if "id" not in session:
        return "Sign in first.\n", 401
    text = request.form["text"].strip()[:2000]
    if text:
        hub.publish(CHANNEL, {"from": session["id"], "name": session["name"], "text": text})
    return Response(status=204)


@app.post("/typing")
def typing() -> Any:
    if "id" not in session:
        return "Sign in first.\n", 401
    hub.publish(CHANNEL, {"from": session["id"]}, event="typing", store=False)
    return Response(status=204)


SIGN_IN = """<!doctype html><title>Chat</title>
<form method="post" action="/sign-in">
  <input name="name" placeholder="Your name" required maxlength="40"> <button>Sign in</button>
</form>"""

CHAT = """<!doctype html><title>Chat</title>
<p>Here: <span id="here"></span></p>
<ul id="messages"></ul>
<p id="typing">&nbsp;</p>
<form id="say"><input name="text" autocomplete="off"> <button>Send</button></form>
<script>
const here = new Map();    // by member, the name
const typing = new Map();  // by member, the timer that forgets it
const $ = (id) => document.getElementById(id);

function show() {
  $("here").textContent = [...here.values()].sort().join(", ");
  const names = [...typing.keys()].filter((who) => here.has(who)).map((who) => here.get(who));
  $("typing").textContent = names.length ? `${names.join(", ")} is typing ...` : "\\u00a0";
}

function forget(who) {
  clearTimeout(typing.get(who));
  typing.delete(who);
  show();
}

const source = new EventSource("/events");
source.addEventListener("stream-reset", () => { here.clear(); $("messages").replaceChildren(); });
source.addEventListener("stream-join", (event) => {
  const { member, value } = JSON.parse(event.data);
  here.set(member, value.name);
  show();
});
source.addEventListener("stream-leave", (event) => {
  here.delete(JSON.parse(event.data).member);
  show();
});
source.addEventListener("typing", (event) => {
  const who = JSON.parse(event.data).from;
  clearTimeout(typing.get(who));
  typing.set(who, setTimeout(forget, 3000, who));
  show();
});
source.onmessage = (event) => {
  const { from, name, text } = JSON.parse(event.data);
  const line = document.createElement("li");
  line.textContent = `${name}: ${text}`;  // textContent: a name is not HTML
  $("messages").append(line);
  forget(from);
};

const post = (path, data) => fetch(path, { method: "POST", body: new URLSearchParams(data) });
let told = 0;
$("say").text.addEventListener("input", () => {
  if (Date.now() - told < 1500) return;
  told = Date.now();
  post("/typing", {});
});
$("say").addEventListener("submit", (event) => {
  event.preventDefault();
  post("/say", { text: $("say").text.value });
  $("say").reset();
  told = 0;
});
</script>"""
