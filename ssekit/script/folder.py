"""Streaming scripts as WSGI applications: one run of the file for each client.

The run happens inside the WSGI call and sends with the server's ``write`` (PEP 3333, "The write()
Callable"), so it needs no second thread and no queue: the file's loop is the stream.  Under
gunicorn's gevent worker it has a greenlet of its own, which goes on when the server's has ended
(`ssekit.host.Client.call_alone`).
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any

from ssekit import host
from ssekit.host import wsgi_servers
from ssekit.script.wsgi_run import WsgiRun
from ssekit.stream.admission import Admission, Limit, rejection
from ssekit.stream.response import Answer, Headers, Offer, opening, plain_answer

if TYPE_CHECKING:
    from ssekit.hub import Hub

log = logging.getLogger("ssekit.script")


class Script:
    """A WSGI application that runs a file once for each client.

    ``heartbeat``, ``retry`` and ``origins`` are those of `ssekit.Stream`.  ``hub``: the one among
    whose streams these are counted, in its `stats` and metrics.  A file that has changed is read
    again.  A file that is missing is answered 404, one that fails before it has sent
    anything 500; what went wrong is logged with its traceback.  Modules beside the file can be
    imported, as in a terminal, but the process has each of them only once, and one of that name
    elsewhere wins.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        heartbeat: float = 15.0,
        retry: int | None = None,
        origins: Iterable[str] = (),
        hub: Hub | None = None,
    ) -> None:
        self._path = Path(path).resolve()
        self._heartbeat = heartbeat
        self._retry = retry
        opening(retry)  # Raises for a wrong one now, and not for each client.
        self._offer = Offer(origins=origins)
        self._limit = Limit(counts=None if hub is None else hub.counts)
        self._compiled: tuple[tuple[int, int], CodeType] | None = None
        # As for a script that the interpreter runs, but after all else: it is the whole process's.
        if (folder := str(self._path.parent)) not in sys.path:
            sys.path.append(folder)

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer a request (PEP 3333)."""
        if environ.get("REQUEST_METHOD") == "OPTIONS":  # A preflight asks about us, not the script.
            return self._offer.answer(environ).give(environ, start_response)
        admission = self._limit.admit(environ)
        if admission is None:
            failed: Answer | None = rejection(environ, self._offer.cors(environ))
        else:
            failed = self._run(environ, start_response, admission)
        return [] if failed is None else failed.give(environ, start_response)

    def _run(
        self, environ: dict[str, Any], start_response: Callable[..., Any], admission: Admission
    ) -> Answer | None:
        """Run the file for this client; return the answer if it has sent none."""
        try:
            code = self._code()
        except FileNotFoundError:
            admission.end()
            return _missing(self._offer.cors(environ))
        except (OSError, SyntaxError, ValueError):
            admission.end()
            log.exception("the script %s cannot be run", self._path)
            return _failed(self._offer.cors(environ))
        client = host.client_of(environ, self._heartbeat)
        server = wsgi_servers.find()
        run = WsgiRun(
            environ,
            start_response,
            client,
            self._offer,
            self._retry,
            server=server,
            admission=admission,
            counts=self._limit.counts,
            code=code,
        )
        done = client.call_alone(server, run.execute)
        return _failed(self._offer.cors(environ)) if done is False else None

    def _code(self) -> CodeType:
        state = self._path.stat()
        version = (state.st_mtime_ns, state.st_size)
        if self._compiled is None or self._compiled[0] != version:
            # Without the __future__ imports of this very module, which are not the script's.
            code = compile(self._path.read_bytes(), str(self._path), "exec", dont_inherit=True)
            self._compiled = version, code
        return self._compiled[1]


class Folder:
    """A WSGI application that serves the scripts of a folder: ``/clock.py`` runs ``clock.py``.

    Only ``.py`` files of the folder itself are served, not those whose name begins with a dot or
    an underscore.  A link counts as what it leads to: one to a hidden file, or out of the folder,
    is not served.  The options are those of `Script`.
    Raises NotADirectoryError if there is no such folder.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        heartbeat: float = 15.0,
        retry: int | None = None,
        origins: Iterable[str] = (),
        hub: Hub | None = None,
    ) -> None:
        self._folder = Path(path).resolve()
        if not self._folder.is_dir():
            raise NotADirectoryError(f"there is no folder {str(path)!r}")
        self._make = partial(Script, heartbeat=heartbeat, retry=retry, origins=origins, hub=hub)
        self._make(self._folder / "any.py")  # Raises for a wrong option now.
        self._scripts: dict[Path, Script] = {}
        self._offer = Offer(origins=origins)

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer a request (PEP 3333)."""
        name = str(environ.get("PATH_INFO", "")).removeprefix("/")
        script = self._script(name)
        if script is None:
            return _missing(self._offer.cors(environ)).give(environ, start_response)
        return script(environ, start_response)

    def _script(self, name: str) -> Script | None:
        try:
            # WSGI shows the bytes of a path as latin-1 (PEP 3333, "Unicode Issues").
            named = self._folder / os.fsdecode(name.encode("latin-1"))
            path = Path(os.path.realpath(named))  # which takes a link to itself, too
            served = _is_shown(name) and _is_shown(path.name) and path.parent == self._folder
            if not served or named.parent != self._folder or not path.is_file():
                self._scripts.pop(path, None)
                return None
        except (OSError, ValueError):  # It is too long, or no path at all.
            return None
        if path not in self._scripts:
            self._scripts[path] = self._make(path)
        return self._scripts[path]


def _is_shown(name: str) -> bool:
    return name.endswith(".py") and name[:1] not in "._" and not {"/", "\\", "\0"} & set(name)


def _missing(cors: Headers) -> Answer:
    return plain_answer("404 Not Found", "There is no such script.", cors)


def _failed(cors: Headers) -> Answer:
    return plain_answer(
        "500 Internal Server Error", "The script failed; the server's log says why.", cors
    )
