"""Whether gevent has patched this process, and how to run something beside everything else.

It looks at what has been patched already; only then is gevent imported.
"""

from __future__ import annotations

import _thread
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

_main_hub: list[Any] = []
"""gevent's hub of the main thread, once ssekit was imported or used there."""


def under_gevent() -> bool:
    """Tell whether blocking calls of this process are gevent's."""
    if _main_hub and not _main_hub[0].dead:
        return True  # What was patched stays so.
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("threading"):
        return False
    _remember_main_hub()
    return True


def main_hub() -> Any:
    """Return gevent's hub of the main thread, or None as long as ssekit was not used there.

    gevent tells a thread its own hub and no other's, so each use in the main thread remembers it.
    """
    return _main_hub[0] if under_gevent() and _main_hub else None


def _remember_main_hub() -> None:
    # The hub survives a fork, but not its being destroyed; asking again is cheap.
    if not _main_hub or _main_hub[0].dead:
        import gevent

        hub = gevent.get_hub()
        if hub.main_hub:
            _main_hub[:] = [hub]


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
    if under_gevent() and (hub := main_hub()) is not None:
        import gevent

        hub.loop.run_callback_threadsafe(gevent.spawn, run)
        return
    threading.Thread(target=run, name=name, daemon=True).start()


def let_others_run() -> None:
    """Let the other threads run; under gevent all greenlets that are ready, or get a byte now."""
    if under_gevent():
        from ssekit.host.turns import wait_for_next_turn

        wait_for_next_turn()
    else:
        time.sleep(0)


def begin_natively(run: Callable[[], None]) -> None:
    """Run a function in a thread of the system's, also under gevent.

    There it goes on while no greenlet of the main thread lets another one run.
    """
    start: Callable[..., int] = _thread.start_new_thread
    if under_gevent():
        from gevent.monkey import get_original

        start = get_original("_thread", "start_new_thread")
    start(run, ())


under_gevent()  # For the main hub: a native thread may be the first to need it.
