"""What a request may send to the hub: publishing with a token, and the page's room without one.

`ssekit.demo.app` routes requests here and answers what is raised, werkzeug's HTTP exceptions, as
JSON. Whoever has the token may publish anything to any channel.  The room is for people who look at
the page: one channel, short messages, a few a second, and only from the page itself.
"""

from __future__ import annotations

import hmac
import ipaddress
import math
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from werkzeug import Request
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import (
    BadRequest,
    Forbidden,
    RequestEntityTooLarge,
    ServiceUnavailable,
    TooManyRequests,
    Unauthorized,
    UnprocessableEntity,
    UnsupportedMediaType,
)

from ssekit.errors import BrokerUnavailable, HubClosed
from ssekit.hub import Hub
from ssekit.wire import Event

LARGEST = 64 * 1024
"""Bytes of a request to publish."""
LARGEST_MESSAGE = 4 * 1024
"""Bytes of a request to say something in the room."""
ROOM = "room"
"""The room's channel."""
MODES = ("off", "local", "open")

# What a proxy adds about the client that it speaks for.
_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via")


class Publishing:
    """``POST /publish``: off without a ``token``, else for requests that bear it (RFC 6750)."""

    def __init__(self, hub: Hub, token: str | None) -> None:
        self._hub = hub
        self._token = token.encode() if token else None

    def __call__(self, request: Request) -> Event:
        """Publish what the request says and return the event with its id."""
        self._check_token(request.headers.get("Authorization", ""))
        fields = _fields(request, LARGEST)
        unknown = sorted(set(fields) - {"channel", "data", "event", "retry"})
        if unknown:
            raise UnprocessableEntity(
                f"There is no field {unknown[0]!r:.80}; use channel, data, event and retry."
            )
        for name in ("channel", "data"):
            if name not in fields:
                raise UnprocessableEntity(f"The field {name} is missing.")
        data = "null" if fields["data"] is None else fields["data"]
        return _publish(
            self._hub, fields["channel"], data, fields.get("event"), _retry(fields.get("retry"))
        )

    def _check_token(self, authorization: str) -> None:
        if self._token is None:
            raise Forbidden("Publishing is off: the server's SSEKIT_TOKEN is not set.")
        scheme, _, given = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized(
                "Publishing needs the header Authorization: Bearer TOKEN.",
                www_authenticate=WWWAuthenticate("bearer", {"realm": "publish"}),
            )
        # WSGI shows a header's bytes as latin-1.
        if not hmac.compare_digest(given.strip().encode("latin-1", "replace"), self._token):
            raise Unauthorized(
                "This is not the server's token.",
                www_authenticate=WWWAuthenticate(
                    "bearer", {"realm": "publish", "error": "invalid_token"}
                ),
            )


class Room:
    """``POST /room``: what a person types into the page.

    ``mode`` is "off", "open", or "local": only from a browser on this very machine.  A server
    behind a proxy sees every request come from its own machine, so "local" looks at more than the
    address: the names that the browser used for the server, and what a proxy adds.
    """

    def __init__(self, hub: Hub, mode: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        if mode not in MODES:
            raise ValueError(f"room must be one of {', '.join(MODES)}, not {mode!r}")
        self._hub = hub
        self._mode = mode
        self._allowance = Allowance(2, 10, clock)

    def admits(self, request: Request) -> bool:
        """Tell whether this client may speak in the room."""
        return self._mode == "open" or (self._mode == "local" and _is_local(request))

    def __call__(self, request: Request) -> Event:
        """Publish the message of the request and return the event with its id."""
        if not self.admits(request):
            raise Forbidden("The room is closed to you: the server's SSEKIT_ROOM says so.")
        if not _from_own_page(request):
            raise Forbidden("The room takes messages from its own page only.")
        wait = self._allowance.take(request.remote_addr or "")
        if wait:
            raise TooManyRequests("That was too fast; wait a moment.", retry_after=math.ceil(wait))
        if request.mimetype != "application/json":
            # A form of another site could be sent without asking; JSON cannot.
            raise UnsupportedMediaType("Send JSON.")
        fields = _fields(request, LARGEST_MESSAGE)
        message = {
            "name": _line(fields, "name", 32),
            "text": _line(fields, "text", 500),
            "time": round(time.time() * 1000),
        }
        return _publish(self._hub, ROOM, message)


class Allowance:
    """So many a ``second`` for each address, with a ``burst``; counted in this process."""

    def __init__(self, second: float, burst: int, clock: Callable[[], float]) -> None:
        self._second = second
        self._burst = burst
        self._clock = clock
        self._full_at: dict[str, float] = {}  # when the address may send a whole burst again

    def take(self, address: str) -> float:
        """Take one; return 0.0, or the seconds until there is one."""
        now = self._clock()
        if len(self._full_at) > 10_000:
            self._full_at = {name: full for name, full in self._full_at.items() if full > now}
        full_at = max(self._full_at.get(address, now), now) + 1 / self._second
        over = full_at - now - self._burst / self._second
        if over > 1e-9:
            return over
        self._full_at[address] = full_at
        return 0.0


def _publish(
    hub: Hub, channel: Any, data: Any, event: Any = None, retry: int | None = None
) -> Event:
    if not isinstance(channel, str):
        raise UnprocessableEntity("The field channel must be text.")
    try:
        return hub.publish(channel, data, event=event, retry=retry)
    except ValueError as error:  # InvalidEvent is one.
        raise UnprocessableEntity(str(error)) from error
    except BrokerUnavailable as error:
        stored = "it may have been stored" if error.maybe_stored else "nothing was stored"
        raise ServiceUnavailable(f"The broker is away: {stored}.", retry_after=5) from error
    except HubClosed as error:
        raise ServiceUnavailable("The server is ending.", retry_after=5) from error


def _fields(request: Request, largest: int) -> Mapping[str, Any]:
    """Return the fields of the request's body, which may be a form or a JSON object."""
    kind = _KINDS.get(request.mimetype)
    if kind is None:
        raise UnsupportedMediaType(f"Send a form or JSON, not {request.mimetype or 'nothing'!r}.")
    # One more than allowed: a body of unknown length (chunked) is cut there without a word, by
    # werkzeug, and what would be left of an event is not the event.
    request.max_content_length = largest + 1
    request.max_form_memory_size = largest
    try:
        if len(request.get_data()) > largest:
            raise RequestEntityTooLarge
        return kind(request)
    except RequestEntityTooLarge as error:
        raise RequestEntityTooLarge(f"The limit is {largest} bytes.") from error


def _json(request: Request) -> Mapping[str, Any]:
    try:
        fields = request.get_json()
    except RecursionError as error:
        raise BadRequest("The JSON is nested too deep.") from error
    except BadRequest as error:
        raise BadRequest("The body is not JSON.") from error
    if not isinstance(fields, dict):
        raise UnprocessableEntity("Send a JSON object with the fields.")
    return fields


def _form(request: Request) -> Mapping[str, Any]:
    # Read before werkzeug does, which would put U+FFFD where the bytes are no text.
    body = request.get_data()
    if request.mimetype == "application/x-www-form-urlencoded":
        body = unquote_to_bytes(body)
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise UnprocessableEntity(f"The form is not UTF-8 text: {error}.") from error
    for name, values in request.form.lists():
        if len(values) > 1:
            raise UnprocessableEntity(f"The field {name!r:.80} is there {len(values)} times.")
    return {name: value for name, value in request.form.items() if name == "data" or value}


_KINDS: dict[str, Callable[[Request], Mapping[str, Any]]] = {
    "application/json": _json,
    "application/x-www-form-urlencoded": _form,
    "multipart/form-data": _form,
}


def _retry(value: Any) -> int | None:
    """Milliseconds; as digits where a form says it.  What else it is, the event refuses."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
        return int(value)
    return value  # type: ignore[no-any-return]


def _line(fields: Mapping[str, Any], name: str, longest: int) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value.strip():
        raise UnprocessableEntity(f"The {name} is missing.")
    if len(value) > longest:
        raise UnprocessableEntity(f"The {name} is longer than {longest} characters.")
    return value.strip()


def _from_own_page(request: Request) -> bool:
    """Tell whether a page of this very origin sent the request (Fetch Metadata; Fetch, Origin)."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    # Without TLS and away from localhost a browser sends no Sec-Fetch-Site, but always an Origin.
    return request.headers.get("Origin") == request.host_url.rstrip("/")


def _is_local(request: Request) -> bool:
    names = [
        request.remote_addr,
        urlsplit(request.host_url).hostname,
        urlsplit(request.headers.get("Origin", request.host_url)).hostname,
    ]
    return all(map(_is_loopback, names)) and not any(name in request.headers for name in _FORWARDED)


def _is_loopback(name: str | None) -> bool:
    try:
        return name == "localhost" or ipaddress.ip_address(name or "").is_loopback
    except ValueError:
        return False
