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

from typing import TYPE_CHECKING, Any

from ssekit.script.calls import comment, respond, return_event_data, send, start

# What `import *` may take: the rest is made when it is asked for, and the request by werkzeug.
__all__ = ["comment", "respond", "return_event_data", "send", "start"]

if TYPE_CHECKING:
    from werkzeug import Request

    from ssekit.script import folder

    Folder = folder.Folder
    Script = folder.Script

    environ: dict[str, Any]
    request: Request
    last_event_id: str | None


def __getattr__(name: str) -> Any:
    """``environ``, ``request`` and ``last_event_id`` are those of the run that asks (PEP 562)."""
    from importlib import import_module

    if name in ("Folder", "Script"):
        # A script that runs by itself needs neither, and starts faster without.
        return getattr(import_module("ssekit.script.folder"), name)
    if name in ("environ", "last_event_id", "request"):
        return getattr(import_module("ssekit.script.calls"), f"{name}_of_run")()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
