"""System checks: what would keep streams from working, said by ``manage.py check``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured

from ssekit.django.configuration import make, options


def register() -> None:
    """Register the checks with Django."""
    for check in (check_settings, check_memory, check_asgi, check_sessions):
        checks.register(check, "ssekit")


def check_settings(app_configs: Sequence[Any] | None, **_: Any) -> list[checks.CheckMessage]:
    """The setting SSEKIT makes a hub."""
    try:
        with make():
            return []
    except (ImproperlyConfigured, ValueError, TypeError, ImportError) as error:
        return [checks.Warning(f"The setting SSEKIT makes no hub: {error}", id="ssekit.W001")]


def check_memory(app_configs: Sequence[Any] | None, **_: Any) -> list[checks.CheckMessage]:
    """A hub in memory is one process's."""
    if settings.DEBUG or not _url().startswith("memory:"):
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
    if not servers:
        return []
    return [
        checks.Warning(
            f"{servers[0]} serves this project over ASGI, where ssekit refuses to stream.",
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


def _url() -> str:
    try:
        return str(options()["url"])
    except ImproperlyConfigured:
        return ""
