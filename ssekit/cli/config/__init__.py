"""``ssekit config SERVER``: print a complete configuration for a server under or before ssekit.

Each text is a pure function of a frozen value (`Site`, `Unit` or `Log`).  This module turns options
into that value and prints the text; the tests run every text with the real server.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable
from typing import Any

from ssekit.cli.common import Usage
from ssekit.cli.config.apache import apache
from ssekit.cli.config.lighttpd import lighttpd
from ssekit.cli.config.nginx import nginx
from ssekit.cli.config.postgresql import Log, postgresql
from ssekit.cli.config.site import Refused, Site, Unit
from ssekit.cli.config.systemd import systemd

__all__ = [
    "Log",
    "Refused",
    "Site",
    "Unit",
    "apache",
    "lighttpd",
    "nginx",
    "options",
    "postgresql",
    "run",
    "systemd",
]

GUNICORN = "127.0.0.1:8000"
CGI_FOLDER = "/usr/lib/cgi-bin"

SERVERS: dict[str, tuple[Callable[[Any], str], dict[str, str], str]] = {
    "nginx": (nginx, {"upstream": GUNICORN}, "nginx in front of gunicorn"),
    "apache": (apache, {"upstream": GUNICORN}, "Apache in front of gunicorn, or running scripts"),
    "lighttpd": (
        lighttpd,
        {"cgi": CGI_FOLDER},
        "lighttpd running scripts, or in front of gunicorn",
    ),
    "fcgiwrap": (nginx, {"cgi": CGI_FOLDER}, "nginx running scripts through fcgiwrap"),
    "systemd": (systemd, {}, "gunicorn as a service"),
    "postgresql": (postgresql, {}, "the tables and functions of a log in PostgreSQL"),
}
"""The text of each server, and what it serves if neither --upstream nor --cgi is given."""

EPILOG = """\
examples:
  ssekit config nginx --name example.org --certificate /etc/ssl/site.pem --key /etc/ssl/site.key
  ssekit config apache --cgi /usr/lib/cgi-bin
  ssekit config systemd mysite:app --workers 4
  ssekit config postgresql --role www | psql mydatabase
ssekit config SERVER --help lists the options for each server.
"""


def options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to ``parser``."""
    parser.description = "Print a complete configuration for a server."
    parser.epilog = EPILOG
    servers = parser.add_subparsers(dest="server", required=True, metavar="SERVER")
    for name, (_, _, about) in SERVERS.items():
        server = servers.add_parser(name, help=about, description=f"Print: {about}.")
        OPTIONS.get(name, _site_options)(server)


def _site_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--name", default="_", help="the server name (default: every name)")
    add("--listen", default="", metavar="[ADDRESS:]PORT", help="default: 80, or 443 with TLS")
    add("--upstream", default="", metavar="HOST:PORT|unix:PATH", help="where gunicorn listens")
    add("--prefix", default="/", metavar="PATH", help='the path of the site, such as "/live/"')
    add("--certificate", default="", metavar="FILE", help="the PEM file for TLS")
    add("--key", default="", metavar="FILE", help="its private key")
    add("--no-http2", dest="http2", action="store_false", help="offer HTTP/1.1 only")
    add("--cgi", default="", metavar="FOLDER", help="a folder of scripts, served at cgi-bin/")
    add(
        "--fcgiwrap",
        default=Site.fcgiwrap,
        metavar="HOST:PORT|unix:PATH",
        help="where fcgiwrap listens, for nginx",
    )


def _unit_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("target", nargs="?", default="wsgi:app", metavar="MODULE:APP")
    add("--folder", default="/srv/ssekit", help="where the application is")
    add("--bind", default=GUNICORN, metavar="HOST:PORT|unix:PATH", help="where gunicorn listens")
    add("--user", default="www-data", help="who runs it")
    add("--gunicorn", default="/srv/ssekit/.venv/bin/gunicorn", help="gunicorn's command")
    add("--workers", type=int, default=1, help="processes")


def _log_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--stream", default=Log.stream, metavar="NAME", help="the log's name, as in its URL")
    add("--role", default="", help="the user of the log, if not the one who runs these statements")


OPTIONS = {"systemd": _unit_options, "postgresql": _log_options}
KINDS = {"systemd": Unit, "postgresql": Log}


def run(arguments: argparse.Namespace) -> int:
    """Print the configuration.  Raises `Usage` for options that a server would misread."""
    text, default, _ = SERVERS[arguments.server]
    kind = KINDS.get(arguments.server, Site)
    given = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(kind)}
    if kind is Site and not given["upstream"] and not given["cgi"]:
        given.update(default)
    try:
        sys.stdout.write(text(kind(**given)))
    except Refused as error:
        raise Usage(str(error)) from error
    return 0
