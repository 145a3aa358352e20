"""``ssekit serve``: run gunicorn with the settings that streams need, for the given target.

The command binds the address itself, so that an address in use is reported in one clear line, and
passes the socket to gunicorn, which replaces this process: signals, logs and exit codes are
gunicorn's from then on.  The target answers only to host names that it is known by; see
`ssekit.trusted_hosts`.
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
from ssekit.trusted_hosts import TrustedHosts, hosts_of

DEFAULT = "127.0.0.1:8000"
EPILOG = """\
TARGET is
  clock.py      a streaming script (see ssekit.script); each client gets its own run of the file
  scripts/      a folder of scripts: /clock.py runs scripts/clock.py
  module:app    any WSGI application that Python can import from the current folder

examples:
  ssekit serve clock.py
  ssekit serve scripts/ --origin https://www.example.org
  ssekit serve mysite:app --bind 127.0.0.1:9000 --workers 4
  ssekit serve mysite:app --host www.example.org      behind a proxy for that name

Only this machine can reach the default address. To let others in, put nginx in front of it
(ssekit config nginx), or bind another address. In both cases name the host in --host or in the
environment variable SSEKIT_HOSTS: a request for any other name is refused (421), because otherwise
every website could read your streams by pointing its own name at your address (DNS rebinding).
For settings that are not here, run gunicorn itself, with -c python:ssekit.gunicorn or your own
file.
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
        help="let pages of this origin read the scripts, with credentials; repeatable",
    )
    parser.add_argument(
        "--host",
        action="append",
        default=[],
        metavar="NAME",
        help="answer to this host name as well as to localhost; .example.org includes all names "
        "below it, and * is every name; repeatable (default: SSEKIT_HOSTS)",
    )
    parser.add_argument(
        "--log-json",
        action="store_true",
        help="write each log line as a JSON object: gunicorn's, the application's, and a line for "
        "each stream that ends and each client that is rejected",
    )


def run(arguments: argparse.Namespace) -> int:
    if arguments.workers < 1:
        raise Usage("--workers needs a number from 1 up")
    hosts = _hosts(arguments.host)
    application, paths = _application(arguments.target, tuple(arguments.origin))
    for package in ("gunicorn", "gevent"):
        if importlib.util.find_spec(package) is None:
            raise SSEError(f"serve needs {package}: pip install 'ssekit[server]'")
    command = [sys.executable, "-m", "gunicorn", "--config", "python:ssekit.gunicorn"]
    command += ["--workers", str(arguments.workers)]
    if arguments.log_json:
        command += ["--logger-class", "ssekit.cli.log_json.Logger"]
    if arguments.bind.startswith("unix:"):
        base = arguments.bind
        command += ["--bind", base]
    else:
        listener = _listener(arguments.bind)
        base = _url(listener)
        listener.set_inheritable(True)
        command += ["--bind", f"fd://{listener.fileno()}"]
        hosts = _with_bound(hosts, arguments.bind, listener)
    print(f"ssekit {ssekit.__version__} serves {arguments.target} (Ctrl-C ends it)")
    for path in paths:
        print(f"  {base}{path}")
    sys.stdout.flush()
    checked = f"ssekit.cli.served:application({application!r}, {hosts!r})"
    os.execv(sys.executable, [*command, checked])  # noqa: S606 - no shell is wanted


def _hosts(given: list[str]) -> tuple[str, ...]:
    hosts = tuple(given) or hosts_of(os.environ.get("SSEKIT_HOSTS", ""))
    try:
        TrustedHosts(lambda _environ, _start: [], hosts)
    except ValueError as error:
        raise Usage(f"{'--host' if given else 'SSEKIT_HOSTS'}: {error}") from error
    return hosts


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
            raise SSEError(f"the folder {target} has no scripts (*.py)")
        return f"ssekit.script:Folder({str(path.resolve())!r}{further})", [f"/{n}" for n in names]
    if path.is_file():
        return f"ssekit.script:Script({str(path.resolve())!r}{further})", ["/"]
    if not re.fullmatch(r"[^\W\d][\w.]*:.+", target):
        raise Usage(f"TARGET {target!r} is not a script, a folder, or of the form module:app")
    if origins:
        raise Usage("--origin is for scripts; an application sets its own: Stream(origins=...)")
    package = re.split("[.:]", target)[0]
    sys.path.insert(0, os.getcwd())  # as gunicorn does
    if importlib.util.find_spec(package) is None:
        raise SSEError(
            f"cannot find the module {package} of {target}: it is not in the current folder, and "
            "it is not installed"
        )
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


def _with_bound(hosts: tuple[str, ...], bind: str, listener: socket.socket) -> tuple[str, ...]:
    """Add the name or address that was bound, and warn if other machines can reach it."""
    address = ipaddress.ip_address(listener.getsockname()[0].partition("%")[0])
    warning = "ssekit: other machines can reach this address"
    if not address.is_unspecified:
        bound = bind.rpartition(":")[0].partition("%")[0].rstrip("]")
        hosts = (*hosts, bound.removeprefix("["))
    elif not hosts:
        warning += ", but only the name localhost is answered; name others with --host"
    if not address.is_loopback:
        print(warning, file=sys.stderr, flush=True)
    return hosts
