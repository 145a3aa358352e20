"""The hub of a project, as its settings say: ``SSEKIT = {"URL": ..., "HISTORY": ...}``.

The keys are the arguments of `ssekit.Hub` in capitals.  The hub is made when it is first used.
"""

from __future__ import annotations

import inspect
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.functional import SimpleLazyObject

from ssekit.hub import Hub

OPTIONS = frozenset(inspect.signature(Hub).parameters)


def options() -> dict[str, Any]:
    """Return the arguments of the hub.  Raises ImproperlyConfigured for settings that make none."""
    given = getattr(settings, "SSEKIT", None)
    if not isinstance(given, dict) or not given.get("URL"):
        raise ImproperlyConfigured(
            'ssekit needs a setting like SSEKIT = {"URL": "sqlite:////var/lib/app/hub.db"}'
        )
    found = {name.lower(): value for name, value in given.items()}
    unknown = sorted(set(found) - OPTIONS)
    if unknown:
        raise ImproperlyConfigured(
            f"SSEKIT has no {unknown[0].upper()!r}; it has {', '.join(sorted(OPTIONS)).upper()}"
        )
    return found


def is_in_postgresql() -> bool:
    """Return whether the hub's log is in a PostgreSQL; false for settings that make no hub."""
    try:
        url = str(options()["url"])
    except ImproperlyConfigured:
        return False
    return url.partition(":")[0] in ("postgresql", "postgres")


def make() -> Hub:
    """Return a hub as the settings say."""
    return Hub(**options())


hub: Any = SimpleLazyObject(make)
"""The project's hub, a `ssekit.Hub`.

Its first use raises ImproperlyConfigured where the setting is missing or wrong.
"""
