"""The page's room: one channel on which the people who look at the page talk to each other.

Its stream says who is here.  A visitor is present by the name that it speaks with, if it may speak.

A message is taken from the page only.  The page is given a token, a secret of the server with the
time until which it holds, and sends it back with each message; other sites cannot read the page,
and so have no token.  Who is given one is the room's mode.  Addresses say nothing here: behind a
proxy every request comes from the proxy's address, whichever client made it.

`ssekit.demo.app` routes requests here and answers what is raised, werkzeug's HTTP exceptions, as
JSON.  Programs publish with `ssekit.demo.publishing`.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from werkzeug import Request
from werkzeug.exceptions import BadRequest, Forbidden, TooManyRequests, UnprocessableEntity
from werkzeug.exceptions import UnsupportedMediaType as UnsupportedType

from ssekit.demo.publishing import fields_of, publish
from ssekit.hub import Hub
from ssekit.stream import Stream
from ssekit.wire import Event

CHANNEL = "room"
MODES = ("off", "link", "open")
MAX_BODY = 4 * 1024
"""Bytes of a request with a message."""
TOKEN_HEADER = "X-Room-Token"  # noqa: S105 - the header's name
VISITOR_HEADER = "X-Room-Visitor"
"""Has what a browser calls itself by: the same in all of its tabs."""
LONGEST_NAME = 32
LIFETIME = 24 * 3600
"""Seconds for which a page may send messages, and an hour more at most, before it has to be
loaded again."""


class Room:
    """``POST /room``: what a person types into the page.

    ``mode`` is "off": nobody may send; "open": everybody who loads the page; "link": everybody who
    loads it by the link with `key`, which only the operator knows until he hands it on.  ``secret``
    is what keys and tokens are made from: all workers need the same.  ``clock`` counts seconds
    since 1970.  Raises ValueError for another mode, or for "link" and "open" without a secret.
    """

    def __init__(
        self,
        hub: Hub,
        mode: str,
        secret: bytes = b"",
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"room must be one of {', '.join(MODES)}, not {mode!r}")
        if mode != "off" and not secret:
            raise ValueError(f"room={mode!r} needs a secret")
        self._hub = hub
        self._mode = mode
        self._secret = secret
        self._clock = clock
        self._allowance = Allowance(2, 10)

    def token(self, key: str) -> str:
        """Return the token for a page that was asked for with ``key``; "" if it may only read."""
        if self._mode == "off":
            return ""
        if self._mode == "link" and not _equal(key, link_key(self._secret)):
            return ""
        # Whole hours, so that a page that was not changed keeps its ETag.
        until = str(int(self._clock() + LIFETIME) // 3600 * 3600 + 3600)
        return f"{until}.{_sign(self._secret, f'page until {until}')}"

    def admits(self, request: Request) -> bool:
        """Tell whether the request has a token that still holds."""
        until, _, signature = request.headers.get(TOKEN_HEADER, "").partition(".")
        return (
            self._mode != "off"
            and _equal(signature, _sign(self._secret, f"page until {until}"))
            and self._clock() < int(until)
        )

    def stream(self, request: Request, **options: Any) -> Stream:
        """Return the stream of the room for a page, which is present if it may speak.

        ``?name=`` is what the others see.  Raises BadRequest for a name that is too long.
        """
        return self._hub.stream(CHANNEL, member=self._member(request), presence=True, **options)

    def _member(self, request: Request) -> tuple[str, object] | None:
        visitor, name = (
            request.headers.get(VISITOR_HEADER, ""),
            request.args.get("name", "").strip(),
        )
        if not visitor or not name or not self.admits(request):
            return None
        if len(name) > LONGEST_NAME:
            raise BadRequest(f"The name is longer than {LONGEST_NAME} characters.")
        # Everybody sees the member's id, and must not be able to take the visitor's place with it.
        return _sign(self._secret, f"visitor {visitor}"), {"name": name}

    def __call__(self, request: Request) -> Event:
        """Publish the message of the request and return the event with its id."""
        if self._mode == "off":
            raise Forbidden("The room is closed: the server's SSEKIT_ROOM is off.")
        if not self.admits(request):
            raise Forbidden("This page may not send, or was loaded too long ago: load it again.")
        if not _from_own_page(request):
            raise Forbidden("The room takes messages from its own page only.")
        wait = self._allowance.take(request.remote_addr or "")
        if wait:
            raise TooManyRequests("That was too fast; wait a moment.", retry_after=math.ceil(wait))
        if request.mimetype != "application/json":
            # A page of another site could send a form without a preflight; JSON it cannot.
            raise UnsupportedType("Send JSON.")
        fields = fields_of(request, MAX_BODY)
        message = {
            "name": _line(fields, "name", LONGEST_NAME),
            "text": _line(fields, "text", 500),
            "time": round(time.time() * 1000),
        }
        return publish(self._hub, CHANNEL, message)


class Allowance:
    """``rate`` messages a second for each address, and ``burst`` at once, in this process."""

    def __init__(
        self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._full_at: dict[str, float] = {}  # when the address may send a whole burst again

    def take(self, address: str) -> float:
        """Take one; return 0.0, or the seconds until there is one."""
        now = self._clock()
        if len(self._full_at) > 10_000:
            self._full_at = {name: full for name, full in self._full_at.items() if full > now}
        full_at = max(self._full_at.get(address, now), now) + 1 / self._rate
        wait = full_at - now - self._burst / self._rate
        if wait > 1e-9:
            return wait
        self._full_at[address] = full_at
        return 0.0


def link_key(secret: bytes) -> str:
    """Return the key of the link by which a page may speak where the mode is "link"."""
    return _sign(secret, "link")


def _sign(secret: bytes, text: str) -> str:
    return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()[:32]


def _equal(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())


def _line(fields: Mapping[str, Any], name: str, longest: int) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value.strip():
        raise UnprocessableEntity(f"The {name} is missing.")
    if len(value) > longest:
        raise UnprocessableEntity(f"The {name} is longer than {longest} characters.")
    return value.strip()


def _from_own_page(request: Request) -> bool:
    """Tell whether a page of this very origin sent the request (Fetch Metadata; Fetch, Origin).

    The token shows that already.  This is a second lock, for a token that leaked.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    # Without TLS and away from localhost a browser sends no Sec-Fetch-Site, but always an Origin.
    return request.headers.get("Origin") == request.host_url.rstrip("/")
