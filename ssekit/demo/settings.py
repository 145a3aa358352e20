"""The demo application's settings, from the environment; ``wsgi.py`` lists them."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

from ssekit.demo.app import Application, create
from ssekit.demo.secret import find_secret
from ssekit.host.state import state_folder
from ssekit.hub import default_url
from ssekit.trusted_hosts import hosts_of

DEFAULT_ROOM = "link"

log = logging.getLogger("ssekit.demo")


def from_environment(
    scripts: str | os.PathLike[str], environment: Mapping[str, str] = os.environ
) -> Application:
    """Return the application that the environment asks for, with the given folder of scripts.

    Raises ValueError for a setting that makes no sense.
    """
    room, secret = room_of(environment)
    return create(
        environment.get("SSEKIT_URL") or default_url(),
        origins=origins_of(environment.get("SSEKIT_ORIGINS", "")),
        hosts=hosts_of(environment.get("SSEKIT_HOSTS", "")),
        token=environment.get("SSEKIT_TOKEN"),
        room=room,
        secret=secret,
        scripts=scripts,
    )


def origins_of(setting: str) -> str | tuple[str, ...]:
    """Return the origins in ``SSEKIT_ORIGINS``: ``*``, or some with spaces or commas between."""
    names = setting.replace(",", " ").split()
    return "*" if names == ["*"] else tuple(names)


def room_of(environment: Mapping[str, str]) -> tuple[str, bytes]:
    """Return the room's mode and secret; where no secret can be kept, the room is off."""
    mode = environment.get("SSEKIT_ROOM") or DEFAULT_ROOM
    if mode == "off":
        return mode, b""
    if environment.get("SSEKIT_SECRET"):
        return mode, environment["SSEKIT_SECRET"].encode()
    try:
        return mode, find_secret(state_folder())
    except (OSError, RuntimeError) as error:
        log.warning("the room is off, as its secret cannot be kept (set SSEKIT_SECRET): %s", error)
        return "off", b""
