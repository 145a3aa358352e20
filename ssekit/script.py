"""For streaming scripts: the same file runs as CGI, in a terminal, and under a WSGI server.

::

    from ssekit import every
    from ssekit.script import send

    for tick in every(10):
        send({"tick": tick})

``python clock.py`` prints the stream.  As a CGI script it answers a browser.  ``Folder("scripts")``
is the WSGI application that serves such files: each client gets its own run of the file, in the
server's own thread or greenlet.  Of a run only what this module gives is the client's own; the
working directory, ``os.environ``, ``sys.path`` and ``print`` are the process's, as in every WSGI
application.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ssekit import runs
from ssekit.negotiation import last_event_id as _last_event_id
from ssekit.wire import Event

# What `import *` may take: the rest is made for who asks for it, and the request by werkzeug.
__all__ = ["comment", "return_event_data", "send", "start"]

if TYPE_CHECKING:
    from werkzeug import Request

    from ssekit import folder

    Folder = folder.Folder
    Script = folder.Script

    environ: dict[str, Any]
    request: Request
    last_event_id: str | None


def send(
    data: Any, event: str | None = None, id: str | None = None, retry: int | None = None
) -> None:
    """Send one event; it has left the process on return.

    The fields are those of `ssekit.Event`; an `Event` as ``data`` is sent as it is.  Raises
    `InvalidEvent` before anything is sent if the format cannot carry it.
    """
    _send(data if isinstance(data, Event) else Event(data, event, id, retry))


def comment(text: str) -> None:
    """Send a comment, which clients ignore."""
    _send(Event(comment=text))


def return_event_data(
    data: Any, event: str | None = "message", id: int | str = 0, retry: int = 0
) -> None:
    """Send one event as the PHP loop's ``returnEventData`` does.

    An ``id`` or ``retry`` of 0 and an empty ``event`` are not sent; None is sent as ``null``.
    """
    _send(
        Event(
            "null" if data is None else data,
            event or None,
            (str(id) if id > 0 else None) if isinstance(id, int) else id or None,
            retry if not isinstance(retry, int) or retry > 0 else None,
        )
    )


def start(headers: Iterable[tuple[str, str]] | Mapping[str, str] = ()) -> None:
    """Send the headers now, with further ones; the first event would do it otherwise.

    They are those of `ssekit.Stream`.  Raises ValueError for one that is not a script's to set.
    """
    runs.current().begin(headers)


def _send(event: Event) -> None:
    block = event.encode()
    if block:
        run = runs.current()
        run.begin()
        run.put(block)


def __getattr__(name: str) -> Any:
    """``environ``, ``request`` and ``last_event_id`` are those of the run that asks (PEP 562)."""
    if name in ("Folder", "Script"):
        # A script that runs by itself needs neither, and starts the sooner without.
        from ssekit import folder

        return getattr(folder, name)
    if name == "environ":
        return runs.current().environ
    if name == "last_event_id":
        return _last_event_id(runs.current().environ)
    if name == "request":
        from ssekit.source import request_of

        return request_of(runs.current().environ)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
