"""The demo application: a page with live streams, the seeds' streams, a hub and a way to publish.

`wsgi.py` makes one with `create` and gives it to a WSGI server.  It routes with werkzeug, and hands
a stream's own iterable to the server untouched, so that what works for a stream alone works here.
What may be posted is `ssekit.demo.posting`'s to say; how a stream is run is `ssekit.stream`'s.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from werkzeug import Request, Response
from werkzeug.exceptions import BadRequest, HTTPException, NotFound
from werkzeug.routing import Map, Rule
from werkzeug.utils import redirect

from ssekit.demo.census import Census
from ssekit.demo.posting import Publishing, Room
from ssekit.hub import Hub
from ssekit.probe import Probe
from ssekit.script import Folder
from ssekit.stream import Stream, admission
from ssekit.stream.timer import every
from ssekit.wire import Event

MOST_CHANNELS = 16
LONGEST_CHANNEL = 128
RETRY = 2000
"""Milliseconds after which a viewer comes back, where nothing else was said."""

WSGI = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_PAGE = Path(__file__).parent / "page"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# The page loads nothing but its own files and talks to nobody but its own server.
_POLICY = "; ".join(
    [
        "default-src 'none'",
        *(f"{kind}-src 'self'" for kind in ("script", "style", "img", "connect")),
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
_PAGE_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


def create(
    url: str = "memory:",
    *,
    origins: str | Iterable[str] = (),
    token: str | None = None,
    scripts: str | os.PathLike[str] | None = None,
    room: str = "off",
    history: int = 1000,
) -> Application:
    """Return the demo application.

    ``url`` and ``history`` are those of its `Hub`.  ``origins`` are those of `Stream`, for every
    stream here.  ``token`` is what a request has to bear to publish; nobody may while it is None
    or empty.  ``scripts`` is the folder of ``/scripts/``.  ``room`` says who may send messages
    from the page: "off" nobody, "local" a browser on the server's own machine, "open" everybody.

    Raises ValueError for a wrong origin or mode and NotADirectoryError for a missing folder.
    """
    return Application(Hub(url, history=history), origins, token, scripts, room)


def origins_of(setting: str) -> str | tuple[str, ...]:
    """Return the origins that ``SSEKIT_ORIGINS`` names: ``*``, or some with spaces between."""
    names = setting.replace(",", " ").split()
    return "*" if names == ["*"] else tuple(names)


class Application:
    """The WSGI application; ``hub`` is what its ``/events`` and ``/publish`` share."""

    def __init__(
        self,
        hub: Hub,
        origins: str | Iterable[str],
        token: str | None,
        scripts: str | os.PathLike[str] | None,
        room: str,
    ) -> None:
        self.hub = hub
        allowed = origins if origins == "*" else tuple(origins)
        self._stream = partial(Stream, retry=RETRY, origins=allowed)
        self._probe = Probe(origins=allowed)
        self._hello = self._stream(hello, headers=[("Vary", "Accept")])
        self._scripts = Path(scripts) if scripts is not None else None
        self._folder = Folder(scripts, origins=allowed) if scripts is not None else None
        self._publishing = Publishing(hub, token)
        self._room = Room(hub, room)
        self._census = Census(admission.open_streams)
        self._files = {
            path.name: path.read_bytes() for path in _PAGE.iterdir() if path.suffix in _TYPES
        }
        self._routes = Map(
            [
                Rule("/", endpoint=partial(self._file, name="index.html"), methods=["GET"]),
                # Each by its name: another method at another address is then a 405 of its own.
                *(
                    Rule(f"/{name}", endpoint=partial(self._file, name=name), methods=["GET"])
                    for name in self._files
                ),
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
        request = Request(environ)
        answer: WSGI
        if not environ.get("PATH_INFO"):
            # Mounted, and asked for without the slash that the page's relative addresses need.
            return redirect(f"{request.script_root}/", 308)(environ, start_response)
        try:
            if environ.get("wsgi.multiprocess"):
                self._census.join()
            endpoint, values = self._routes.bind_to_environ(environ).match()
            answer = endpoint(request, **values)
        except HTTPException as error:
            answer = _problem(error)
        return answer(environ, start_response)

    def _file(self, request: Request, name: str) -> WSGI:
        """The page and its parts.  A browser asks each time whether it has the newest."""
        answer = Response(self._files[name], content_type=_TYPES[Path(name).suffix])
        answer.headers.update(_PAGE_HEADERS)
        answer.add_etag()
        return answer.make_conditional(request.environ)

    def _status(self, request: Request) -> WSGI:
        """What the page shows about the server, asked with a plain request every two seconds."""
        streams, workers = self._census.take(alone=not request.environ.get("wsgi.multiprocess"))
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
        # As the seed does: who asks for an event stream by name gets it, anybody else "ok".
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
        if len(channels) > MOST_CHANNELS:
            raise BadRequest(f"These are {len(channels)} channels; the limit is {MOST_CHANNELS}.")
        for channel in channels:
            if len(channel) > LONGEST_CHANNEL:
                raise BadRequest(f"A channel has at most {LONGEST_CHANNEL} characters.")
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


def hello() -> Iterator[Event]:
    """Workerman's timer: "hello" with the id 1 every two seconds."""
    ticks = every(2)
    next(ticks)  # a timer's first tick comes after its interval
    for _ in ticks:
        yield Event("hello", event="message", id="1")


def _json(value: object, status: int = 200) -> Response:
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return Response(json.dumps(value), status, headers, content_type="application/json")


def _problem(error: HTTPException) -> WSGI:
    """Answer an error as JSON, with the headers and the status that the error brings."""
    if error.response is not None or (error.code or 500) < 400:
        return error
    answer = _json({"error": error.description}, error.code or 500)
    for name, value in error.get_headers():
        if name.lower() not in ("content-type", "content-length"):
            answer.headers.add(name, value)
    return answer
