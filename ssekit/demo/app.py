"""The demo application: a page with live streams, a hub, and a way to publish to it.

`wsgi.py` makes one with `create` and gives it to a WSGI server.  It routes with werkzeug, and hands
a stream's own iterable to the server untouched, so that what works for a stream alone works here.
What may be posted is decided in `ssekit.demo.publishing` and `ssekit.demo.room`.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from werkzeug import Request, Response
from werkzeug.exceptions import BadRequest, HTTPException, NotFound
from werkzeug.routing import Map, Rule
from werkzeug.utils import redirect

from ssekit.browser import files
from ssekit.demo.files import Files
from ssekit.demo.open_streams import OpenStreams
from ssekit.demo.publishing import Publishing
from ssekit.demo.room import Room
from ssekit.hub import Hub
from ssekit.hub.counters_file import counters_file
from ssekit.probe import Probe
from ssekit.script import Folder
from ssekit.stream import Stream
from ssekit.stream.timer import every
from ssekit.trusted_hosts import TrustedHosts
from ssekit.wire import Event

MAX_CHANNELS = 16
MAX_CHANNEL_LENGTH = 128

WSGI = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def create(
    url: str = "memory:",
    *,
    origins: str | Iterable[str] = (),
    hosts: Iterable[str] = (),
    token: str | None = None,
    scripts: str | os.PathLike[str] | None = None,
    room: str = "off",
    secret: bytes = b"",
    history: int = 1000,
) -> Application:
    """Return the demo application.

    ``url`` and ``history`` are those of its `Hub`.  ``origins`` are those of `Stream`, for every
    stream here.  ``hosts`` are the names it answers to, as well as localhost: see `TrustedHosts`.
    ``token`` is what a request has to bear to publish; while it is None or empty, nobody can.
    ``scripts`` is the folder of ``/scripts/``.  ``room`` and ``secret`` are those of `Room`.

    Raises ValueError for a wrong origin, host or mode, and NotADirectoryError for a missing folder.
    """
    hub = Hub(url, history=history)
    return Application(
        hub,
        Room(hub, room, secret),
        OpenStreams(counters_file(url, "-demo")),
        origins=origins,
        hosts=hosts,
        token=token,
        scripts=scripts,
    )


class Application:
    """The WSGI application; ``hub`` is what its ``/events`` and ``/publish`` share."""

    def __init__(
        self,
        hub: Hub,
        room: Room,
        streams: OpenStreams,
        *,
        origins: str | Iterable[str],
        hosts: Iterable[str],
        token: str | None,
        scripts: str | os.PathLike[str] | None,
    ) -> None:
        self.hub = hub
        self._room = room
        self._trusted = TrustedHosts(self._answer, hosts)
        allowed = origins if origins == "*" else tuple(origins)
        self._stream = partial(Stream, origins=allowed)
        self._probe = Probe(origins=allowed)
        self._hello = Stream.every(2, origins=allowed, headers=[("Vary", "Accept")])(hello)
        self._scripts = Path(scripts) if scripts is not None else None
        self._folder = Folder(scripts, origins=allowed, hub=hub) if scripts else None
        self._publishing = Publishing(hub, token)
        self._streams = streams
        self._files = Files()
        self._routes = Map(
            [
                Rule("/", endpoint=self._answer_page, methods=["GET"]),
                # Each by its name, so that another method is a 405 there and a 404 elsewhere.
                *(
                    Rule(f"/{name}", endpoint=partial(self._files.part, name=name), methods=["GET"])
                    for name in self._files.names
                ),
                Rule("/ssekit.js", endpoint=lambda _: files),
                Rule("/status", endpoint=self._status, methods=["GET"]),
                Rule("/clock", endpoint=self._answer_clock),
                Rule("/hello", endpoint=self._answer_hello),
                Rule("/scripts/<path:name>", endpoint=self._answer_script),
                Rule("/events", endpoint=self._answer_events),
                Rule("/probe", endpoint=lambda _: self._probe),
                Rule("/publish", endpoint=self._publish, methods=["POST"]),
                Rule("/room", endpoint=self._say, methods=["POST"]),
            ],
            redirect_defaults=False,
            merge_slashes=False,
        )

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer a request (PEP 3333)."""
        return self._trusted(environ, start_response)

    def _answer(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        request = Request(environ)
        answer: WSGI
        try:
            self._streams.join()
            _check_mount(environ.get("SCRIPT_NAME", ""))
            if environ.get("PATH_INFO"):
                endpoint, values = self._routes.bind_to_environ(environ).match()
                answer = endpoint(request, **values)
            else:
                # Mounted, and asked for without the slash that the page's relative addresses need.
                answer = redirect(f"{request.script_root}/", 308)
        except HTTPException as error:
            answer = _problem(error)
        return answer(environ, start_response)

    def _answer_page(self, request: Request) -> WSGI:
        return self._files.page(request, self._room.token(request.args.get("key", "")))

    def _status(self, request: Request) -> WSGI:
        """Answer what the page shows about the server, and asks for every two seconds."""
        streams, workers = self._streams.count()
        scripts = self._scripts.glob("[!._]*.py") if self._scripts is not None else []
        return _json(
            {
                "streams": streams,
                "workers": workers,
                "room": self._room.admits(request),
                "scripts": sorted(path.name for path in scripts),
                "time": round(time.time() * 1000),
            }
        )

    def _answer_clock(self, request: Request) -> WSGI:
        text = request.args.get("interval", "10")
        try:
            interval = float(text)
        except ValueError:
            interval = -1.0
        if not 0.1 <= interval <= 60:
            raise BadRequest(f"interval must be seconds from 0.1 to 60, not {text!r:.80}.")
        return self._stream(partial(clock, interval))

    def _answer_hello(self, request: Request) -> WSGI:
        # As in Workerman's program: a client that names text/event-stream gets the stream, every
        # other one "ok".
        if dict(request.accept_mimetypes).get("text/event-stream") or request.method == "OPTIONS":
            return self._hello
        return Response("ok", content_type="text/plain; charset=utf-8", headers={"Vary": "Accept"})

    def _answer_script(self, request: Request, name: str) -> WSGI:
        if self._folder is None:
            raise NotFound("This server has no folder of scripts.")
        # Mounted: the folder sees its own part of the path (PEP 3333, SCRIPT_NAME and PATH_INFO).
        environ = request.environ
        environ["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "") + "/scripts"
        environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix("/scripts")
        return self._folder

    def _answer_events(self, request: Request) -> WSGI:
        channels = list(dict.fromkeys(request.args.getlist("channel")))
        if not channels:
            raise BadRequest("Name a channel: /events?channel=NAME.")
        if len(channels) > MAX_CHANNELS:
            raise BadRequest(f"{len(channels)} channels are too many; the limit is {MAX_CHANNELS}.")
        for channel in channels:
            if len(channel) > MAX_CHANNEL_LENGTH:
                raise BadRequest(f"A channel has at most {MAX_CHANNEL_LENGTH} characters.")
        try:
            return self.hub.stream(*channels, **self._stream.keywords)
        except ValueError as error:
            raise BadRequest(str(error)) from error

    def _publish(self, request: Request) -> WSGI:
        return _json({"id": self._publishing(request).id}, 201)

    def _say(self, request: Request) -> WSGI:
        return _json({"id": self._room(request).id}, 201)


def clock(interval: float) -> Iterator[Event]:
    """The PHP blog's loop: the time as JSON, at once and then every ``interval`` seconds."""
    for _ in every(interval):
        data = {"id": int(time.time()), "message": greeting()}
        yield Event(data, event="message")


def greeting() -> str:
    """The PHP blog's message: the server's time, for people."""
    return time.strftime("Welcome, it is %Y-%m-%d %H:%M:%S %Z")


def hello(tick: Any) -> Event | None:
    """Workerman's timer: "hello" with the id 1 every two seconds."""
    # A timer's first tick comes after its interval.
    return Event("hello", event="message", id="1") if tick.number else None


def _check_mount(script_name: str) -> None:
    """Refuse a SCRIPT_NAME that would make of our relative redirects one to another site.

    A server may take it from a request's header, and browsers read //host and /\\host as a host.
    """
    if script_name and not re.fullmatch(r"(?:/[^/\\\x00-\x20\x7f]+)+", script_name):
        raise BadRequest("SCRIPT_NAME must be a path such as /demo.")


def _json(value: object, status: int = 200) -> Response:
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return Response(json.dumps(value), status, headers, content_type="application/json")


def _problem(error: HTTPException) -> WSGI:
    """Answer an error as JSON, with the error's status and headers."""
    if error.response is not None or (error.code or 500) < 400:
        return error
    answer = _json({"error": error.description}, error.code or 500)
    for name, value in error.get_headers():
        if name.lower() not in ("content-type", "content-length"):
            answer.headers.add(name, value)
    return answer
