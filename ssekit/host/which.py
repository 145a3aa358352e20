"""Which kind of host this process is: gevent, threads, or one stream that has the process.

It looks at ``environ`` and at what has been patched already; only then is gevent imported.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from ssekit.host.client import Client


def under_gevent() -> bool:
    """Tell whether blocking calls of this process are gevent's."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def in_event_loop() -> bool:
    """Tell whether this is gevent's event loop itself, where nothing can wait.

    Its callbacks run there, and so do signal handlers while the process has nothing else to do.
    """
    if not under_gevent():
        return False
    from gevent import getcurrent
    from gevent.hub import Hub

    return isinstance(getcurrent(), Hub)


def begin(run: Callable[[], None], name: str) -> None:
    """Run a function beside everything else from now on, for as long as the process lives.

    That is a daemon thread; under gevent a greenlet of the main thread, where the streams are: one
    of another thread would run only while that thread waits, and end with it.
    """
    if under_gevent():
        from ssekit.host.eventloop import begin_in_main_thread

        if begin_in_main_thread(run):
            return
    threading.Thread(target=run, name=name, daemon=True).start()


def client_of(environ: dict[str, Any], heartbeat: float) -> Client:
    """Return the client behind a WSGI request."""
    given = environ.get("ssekit.client")
    if isinstance(given, Client):
        given.heartbeat = heartbeat
        return given
    if under_gevent():
        from ssekit.host.greenlets import GreenletClient

        return GreenletClient(heartbeat)
    from ssekit.host.threads import ThreadClient

    return ThreadClient(heartbeat)
