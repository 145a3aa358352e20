"""``POST /publish``: a request with the server's token may publish anything on any channel.

`ssekit.demo.app` routes requests here and answers what is raised, werkzeug's HTTP exceptions, as
JSON.  How the fields of a request are read, and how an event is published with the right status for
each failure, is shared with the room (`ssekit.demo.room`).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from werkzeug import Request
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import (
    BadRequest,
    Forbidden,
    RequestEntityTooLarge,
    ServiceUnavailable,
    Unauthorized,
    UnprocessableEntity,
    UnsupportedMediaType,
)

from ssekit.errors import BrokerUnavailable, HubClosed
from ssekit.hub import Hub
from ssekit.wire import Event

MAX_BODY = 64 * 1024
"""Bytes of a request to publish."""


class Publishing:
    """``POST /publish``, for requests that bear ``token`` (RFC 6750); off while there is none."""

    def __init__(self, hub: Hub, token: str | None) -> None:
        self._hub = hub
        self._token = token.encode() if token else None

    def __call__(self, request: Request) -> Event:
        """Publish the event that the request describes, and return it with its id."""
        self._check_token(request.headers.get("Authorization", ""))
        fields = fields_of(request, MAX_BODY)
        unknown = sorted(set(fields) - {"channel", "data", "event", "retry"})
        if unknown:
            raise UnprocessableEntity(
                f"Unknown field {unknown[0]!r:.80}; use channel, data, event and retry."
            )
        for name in ("channel", "data"):
            if name not in fields:
                raise UnprocessableEntity(f"The field {name} is missing.")
        data = "null" if fields["data"] is None else fields["data"]
        return publish(
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
                "The token is wrong.",
                www_authenticate=WWWAuthenticate(
                    "bearer", {"realm": "publish", "error": "invalid_token"}
                ),
            )


def publish(
    hub: Hub, channel: Any, data: Any, event: Any = None, retry: int | None = None
) -> Event:
    """Publish an event, and raise the HTTP exception for what may go wrong."""
    if not isinstance(channel, str):
        raise UnprocessableEntity("The field channel must be text.")
    try:
        return hub.publish(channel, data, event=event, retry=retry)
    except ValueError as error:  # InvalidEvent is one.
        raise UnprocessableEntity(str(error)) from error
    except BrokerUnavailable as error:
        stored = "it may have been stored" if error.maybe_stored else "nothing was stored"
        raise ServiceUnavailable(f"The broker is unavailable: {stored}.", retry_after=5) from error
    except HubClosed as error:
        raise ServiceUnavailable("The server is shutting down.", retry_after=5) from error


def fields_of(request: Request, limit: int) -> Mapping[str, Any]:
    """Return the fields of the request's body, which may be a form or a JSON object.

    Raises the HTTP exception for a body that is neither, or that has more than ``limit`` bytes.
    """
    kind = _KINDS.get(request.mimetype)
    if kind is None:
        raise UnsupportedMediaType(f"Send a form or JSON, not {request.mimetype or 'nothing'!r}.")
    # One more than allowed: werkzeug silently cuts a body of unknown length (chunked) there, and a
    # part of an event is not the event.
    request.max_content_length = limit + 1
    request.max_form_memory_size = limit
    try:
        if len(request.get_data()) > limit:
            raise RequestEntityTooLarge
        return kind(request)
    except RequestEntityTooLarge as error:
        raise RequestEntityTooLarge(f"The limit is {limit} bytes.") from error


def _json(request: Request) -> Mapping[str, Any]:
    try:
        fields = request.get_json()
    except RecursionError as error:
        raise BadRequest("The JSON is nested too deeply.") from error
    except BadRequest as error:
        raise BadRequest("The body is not JSON.") from error
    if not isinstance(fields, dict):
        raise UnprocessableEntity("Send a JSON object with the fields.")
    return fields


def _form(request: Request) -> Mapping[str, Any]:
    # Read before werkzeug does, which would replace invalid bytes by U+FFFD.
    body = request.get_data()
    if request.mimetype == "application/x-www-form-urlencoded":
        body = unquote_to_bytes(body)
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise UnprocessableEntity(f"The form is not UTF-8 text: {error}.") from error
    for name, values in request.form.lists():
        if len(values) > 1:
            raise UnprocessableEntity(f"The field {name!r:.80} is given {len(values)} times.")
    return {name: value for name, value in request.form.items() if name == "data" or value}


_KINDS: dict[str, Callable[[Request], Mapping[str, Any]]] = {
    "application/json": _json,
    "application/x-www-form-urlencoded": _form,
    "multipart/form-data": _form,
}


def _retry(value: Any) -> int | None:
    """Return the milliseconds, which a form gives as digits; the event refuses anything else."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
        return int(value)
    return value  # type: ignore[no-any-return]
