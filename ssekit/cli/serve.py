"""``ssekit serve``: gunicorn with the settings that streams need, in front of the target.

It binds the address itself, so that an address in use is one clear line, and hands it to gunicorn,
which takes this process over: signals, logs and exit codes are gunicorn's from there.
"""

from __future__ import annotations

import argparse
import importlib.util
import ipaddress
import os
import re
import socket
import sys
from pathlib import Path

import ssekit
from ssekit.cli.common import Usage
from ssekit.errors import SSEError
from ssekit.gunicorn import backlog
from ssekit.stream.response import Offer

DEFAULT = "127.0.0.1:8000"
EPILOG = """\
TARGET is
  clock.py      a streaming script (see ssekit.script): each client gets its own run of the file
  scripts/      a folder of them: /clock.py runs scripts/clock.py
  module:app    any WSGI application, found from the current folder

examples:
  ssekit serve clock.py
  ssekit serve scripts/ --origin https://www.example.org
  ssekit serve wsgi:app --bind 127.0.0.1:9000 --workers 4

Only this machine can reach the default address. For others, put nginx in front (ssekit has a
configuration for it), or bind another address. Settings beyond these: run gunicorn itself,
with -c python:ssekit.gunicorn or your own file.
"""


def options(parser: argparse.ArgumentParser) -> None:
    parser.description = "Serve a script, a folder of scripts or a WSGI application with gunicorn."
    parser.epilog = EPILOG
    parser.add_argument("target", metavar="TARGET", help="a script, a folder, or module:app")
    parser.add_argument(
        "--bind", default=DEFAULT, metavar="HOST:PORT", help="or unix:PATH (default: %(default)s)"
    )
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes (default: 1)"
    )
    parser.add_argument(
        "--origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="may read scripts from pages of this origin, with credentials; repeatable",
    )


def run(arguments: argparse.Namespace) -> int:
    if arguments.workers < 1:
        raise Usage("--workers needs a number from 1 up")
    application, paths = _application(arguments.target, tuple(arguments.origin))
    for package in ("gunicorn", "gevent"):
        if importlib.util.find_spec(package) is None:
            raise SSEError(f"serve needs {package}: pip install 'ssekit[server]'")
    command = [sys.executable, "-m", "gunicorn", "--config", "python:ssekit.gunicorn"]
    command += ["--workers", str(arguments.workers)]
    if arguments.bind.startswith("unix:"):
        base = arguments.bind
        command += ["--bind", base]
    else:
        listener = _listener(arguments.bind)
        base = _url(listener)
        listener.set_inheritable(True)
        command += ["--bind", f"fd://{listener.fileno()}"]
        _warn_of_strangers(listener)
    print(f"ssekit {ssekit.__version__} serves {arguments.target} (Ctrl-C ends it)")
    for path in paths:
        print(f"  {base}{path}")
    sys.stdout.flush()
    os.execv(sys.executable, [*command, application])  # noqa: S606 - no shell is wanted


def _application(target: str, origins: tuple[str, ...]) -> tuple[str, list[str]]:
    """Return gunicorn's name of the application, and the paths worth showing."""
    path = Path(target)
    try:
        Offer(origins=origins)
    except ValueError as error:
        raise Usage(f"--origin: {error}") from error
    further = f", origins={origins!r}" if origins else ""
    if path.is_dir():
        names = sorted(file.name for file in path.glob("[!._]*.py"))
        if not names:
            raise SSEError(f"there is no script (*.py) in the folder {target}")
        return f"ssekit.script:Folder({str(path.resolve())!r}{further})", [f"/{n}" for n in names]
    if path.is_file():
        return f"ssekit.script:Script({str(path.resolve())!r}{further})", ["/"]
    if not re.fullmatch(r"[^\W\d][\w.]*:.+", target):
        raise Usage(f"TARGET {target!r} is no script, no folder and not of the form module:app")
    if origins:
        raise Usage("--origin is for scripts; an application has its own (ssekit.Stream: origins)")
    package = re.split("[.:]", target)[0]
    sys.path.insert(0, os.getcwd())  # as gunicorn does
    if importlib.util.find_spec(package) is None:
        raise SSEError(f"there is no module {package} for {target}, neither here nor installed")
    return target, ["/"]


def _listener(bind: str) -> socket.socket:
    host, _, port = bind.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise Usage(f"--bind needs HOST:PORT or unix:PATH, for instance {DEFAULT}, not {bind!r}")
    try:
        family, *_, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=backlog)
    except OSError as error:
        # create_server's text ends with the address once more, in parentheses.
        reason = str(error.strerror or error).partition(" (")[0]
        raise SSEError(f"cannot bind {bind}: {reason}; name another with --bind") from error


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _warn_of_strangers(listener: socket.socket) -> None:
    if not ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback:
        print("ssekit: other machines can reach this address", file=sys.stderr, flush=True)
