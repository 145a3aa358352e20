"""System checks: what would keep streams from working, said by ``manage.py check [--deploy]``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured

from ssekit.django.buffering import holds_back
from ssekit.django.configuration import make, options
from ssekit.django.server_settings import server_settings


def register() -> None:
    """Register the checks with Django."""
    for check in (
        check_settings,
        check_memory,
        check_asgi,
        check_sessions,
        check_preload,
        check_secret,
    ):
        checks.register(check, "ssekit")
    # It runs the project's middleware, which is not done at each start of a server.
    checks.register(check_middleware, "ssekit", deploy=True)


def check_settings(app_configs: Sequence[Any] | None, **_: Any) -> list[checks.CheckMessage]:
    """The setting SSEKIT makes a hub."""
    try:
        with make():
            return []
    except (ImproperlyConfigured, ValueError, TypeError, ImportError) as error:
        return [checks.Warning(f"The setting SSEKIT makes no hub: {error}", id="ssekit.W001")]


def check_memory(app_configs: Sequence[Any] | None, **_: Any) -> list[checks.CheckMessage]:
    """A hub in memory is one process's."""
    workers = server_settings().get("workers", 1)
    several = isinstance(workers, int) and workers > 1
    if not _url().startswith("memory:") or (settings.DEBUG and not several):
        return []
    return [
        checks.Warning(
            "The hub is in the memory of one process.",
            hint=(
                "With several workers, what one publishes does not reach the viewers of the "
                'others: use SSEKIT = {"URL": "sqlite:////var/lib/app/hub.db"}, redis: or '
                "postgresql:."
            ),
            id="ssekit.W002",
        )
    ]


def check_asgi(app_configs: Sequence[Any] | None, **_: Any) -> list[checks.CheckMessage]:
    """Streams need WSGI."""
    servers = [name for name in ("daphne", "channels") if apps.is_installed(name)]
    if getattr(settings, "ASGI_APPLICATION", None):
        servers.append("ASGI_APPLICATION")
    if not servers:
        return []
    return [
        checks.Warning(
            f"This project is served over ASGI ({servers[0]}), where ssekit refuses to stream.",
            hint="Serve streams with gunicorn -k gevent and the project's wsgi.py.",
            id="ssekit.W003",
        )
    ]


def check_sessions(app_configs: Sequence[Any] | None, **_: Any) -> list[checks.CheckMessage]:
    """Sessions in cookies cannot be ended by the server."""
    if settings.SESSION_ENGINE != "django.contrib.sessions.backends.signed_cookies":
        return []
    return [
        checks.Warning(
            "Sessions are kept in cookies, and a stolen cookie is valid after signing out.",
            hint="ssekit ends the streams of such a session, but its cookie opens new ones.",
            id="ssekit.W004",
        )
    ]


def check_middleware(app_configs: Sequence[Any] | None, **_: Any) -> list[checks.CheckMessage]:
    """Middleware passes a stream on as it comes."""
    return [
        checks.Warning(
            f"The middleware {name} holds streams back until they end.",
            hint=(
                "No event reaches a page through it.  Let it leave responses alone whose "
                "Content-Encoding is set or whose Content-Type is text/event-stream."
            ),
            id="ssekit.W005",
        )
        for name in settings.MIDDLEWARE
        if holds_back(name)
    ]


def check_preload(app_configs: Sequence[Any] | None, **_: Any) -> list[checks.CheckMessage]:
    """gevent patches before the project is imported."""
    found = server_settings()
    if found.get("preload_app") is not True or found.get("worker_class") in ("sync", "gthread"):
        return []
    return [
        checks.Warning(
            "gunicorn is told to preload the project, before its gevent workers patch anything.",
            hint=(
                "Database connections of the ORM then fail with every request, and a postgresql: "
                "hub refuses to work.  Leave out --preload and preload_app."
            ),
            id="ssekit.W006",
        )
    ]


def check_secret(app_configs: Sequence[Any] | None, **_: Any) -> list[checks.CheckMessage]:
    """The sessions that streams belong to are named with the project's secret."""
    try:
        if settings.SECRET_KEY:
            return []
    except ImproperlyConfigured:
        pass
    return [
        checks.Warning(
            "SECRET_KEY is missing, which names the session of a stream.",
            hint=(
                "Endpoints cannot authorize anybody, and signing out ends no streams.  All workers "
                "and machines need the same key."
            ),
            id="ssekit.W007",
        )
    ]


def _url() -> str:
    try:
        return str(options()["url"])
    except ImproperlyConfigured:
        return ""
