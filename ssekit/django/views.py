"""A view that streams to each user what it may read, and ends the stream when it may no more.

The user and the session of Django's request become the grant's subject and session, so that
`ssekit.django.signals` can end the streams of a user or a session that is gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest
from django.utils.crypto import salted_hmac
from werkzeug.exceptions import Forbidden, NotFound

from ssekit.django.response import StreamResponse, refuse_asgi
from ssekit.hub import Hub
from ssekit.hub.grant import Grant
from ssekit.stream.stream import Stream

Authorize = Callable[[HttpRequest], Grant | Iterable[str] | None]

_REQUEST = "ssekit.django.request"


def endpoint(hub: Hub, authorize: Authorize, **options: Any) -> Callable[..., StreamResponse]:
    """Return a view that streams what ``authorize`` admits its request to.

    ``authorize`` gets Django's request and returns the channels that the user may read, a `Grant`,
    or None, which is answered 401.  It may raise Django's ``PermissionDenied`` and ``Http404``.  If
    it fails, for instance because the database has no connection left, the client is told to come
    back.  A grant without a subject gets the user's primary key, and one without a session or an
    end those of the user's session.

    The options are those of `Hub.endpoint`, and are checked at the first request: an invalid one
    raises what that raises.
    The view raises ImproperlyConfigured under ASGI, as `StreamResponse` does.
    """

    def of_request(request: Any) -> Grant | None:
        found: HttpRequest = request.environ[_REQUEST]
        try:
            granted = authorize(found)
        except PermissionDenied as error:
            raise Forbidden(str(error) or None) from None
        except Http404 as error:
            raise NotFound(str(error) or None) from None
        if granted is None:
            return None
        return _completed(granted if isinstance(granted, Grant) else Grant([*granted]), found)

    @cache  # The project's hub is made when it is first used, not when its addresses are read.
    def stream() -> Stream:
        return hub.endpoint(of_request, **options)

    def view(request: HttpRequest) -> StreamResponse:
        refuse_asgi(request)
        request.environ[_REQUEST] = request
        try:
            return StreamResponse(stream(), request)
        finally:
            del request.environ[_REQUEST]

    return view


def session_id(session_key: str) -> str:
    """Return what names a session in the log: its key is a secret, and this is not."""
    return str(salted_hmac("ssekit.session", session_key).hexdigest()[:32])


def _completed(grant: Grant, request: HttpRequest) -> Grant:
    """Return the grant with what the user and its session say."""
    user = getattr(request, "user", None)
    if grant.subject is None and user is not None and user.is_authenticated:
        grant = replace(grant, subject=str(user.pk))
    session = getattr(request, "session", None)
    if session is not None and session.session_key is not None:
        if grant.session is None:
            grant = replace(grant, session=session_id(session.session_key))
        if grant.expires is None:
            grant = replace(grant, expires=session.get_expiry_date().timestamp())
    return grant if grant.issued is not None else replace(grant, issued=time.time())
