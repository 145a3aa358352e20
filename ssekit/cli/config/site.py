"""What a configuration is made from: one frozen value of each kind, which refuses wrong fields.

The command makes a `Site` or a `Unit` from its options and passes it to one of the texts beside
this module.  They insert its fields unquoted, so this is the one place that decides what is
allowed: a value with a space, quote, brace, semicolon or line end would mean something else to the
server, and is refused.  This module knows no server.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAME = re.compile(r"_|[A-Za-z0-9.-]+")
_PATH = re.compile(r"/[A-Za-z0-9._~+@%,/-]*")
_LISTEN = re.compile(r"(?:([0-9.]+|\[[0-9A-Fa-f:]+\]):)?([0-9]{1,5})")
_HOST = re.compile(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\]):([0-9]{1,5})")
_TARGET = re.compile(r"[A-Za-z_][\w.]*(?::[A-Za-z_]\w*)?")
_USER = re.compile(r"[a-z_][a-z0-9_-]*")


class Refused(ValueError):
    """Raised for an option that a server would misread; the text says what to write instead."""


def _wanted(pattern: re.Pattern[str], value: str, what: str) -> re.Match[str]:
    match = pattern.fullmatch(value)
    if match is None:
        raise Refused(f"{value!r:.80} is not {what}")
    return match


def _file(value: str) -> None:
    _wanted(_PATH, value, "an absolute path of letters, digits and . _ ~ + @ % , / -")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens: a host and port, or a unix socket."""

    host: str
    port: int
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``HOST:PORT`` or ``unix:/path``; raises `Refused` for anything else."""
        if text.startswith("unix:"):
            path = text.removeprefix("unix:")
            _file(path)
            return cls("", 0, path)
        match = _wanted(_HOST, text, "HOST:PORT or unix:/path")
        return cls(match[1], _port(match[2]))

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else f"{self.host}:{self.port}"


def _port(digits: str) -> int:
    port = int(digits)
    if not 0 < port < 65536:
        raise Refused(f"{digits} is not a port from 1 to 65535")
    return port


@dataclass(frozen=True)
class Site:
    """One site in front of gunicorn, of a folder of CGI scripts, or of both.

    ``name``: the server name; "_" is every name.
    ``listen``: ``PORT`` or ``ADDRESS:PORT``; without it 80, or 443 with a certificate.
    ``upstream``: where gunicorn listens, ``HOST:PORT`` or ``unix:/path``.
    ``prefix``: the path of the site, from "/" to "/".
    ``certificate``, ``key``: PEM files; with them the site speaks TLS.
    ``http2``: HTTP/2, if there is TLS; browsers do not speak it otherwise.
    ``cgi``: a folder of executable scripts, served at ``prefix`` + "cgi-bin/".
    ``fcgiwrap``: where fcgiwrap listens, for servers that cannot run a script themselves.

    Raises `Refused` for values that a server would misread.
    """

    name: str = "_"
    listen: str = ""
    upstream: str = ""
    prefix: str = "/"
    certificate: str = ""
    key: str = ""
    http2: bool = True
    cgi: str = ""
    fcgiwrap: str = "unix:/run/fcgiwrap.socket"

    def __post_init__(self) -> None:
        _wanted(_NAME, self.name, "a server name")
        if self.listen:
            _port(_wanted(_LISTEN, self.listen, "PORT or ADDRESS:PORT")[2])
        if self.upstream:
            Address.parse(self.upstream)
        Address.parse(self.fcgiwrap)
        _wanted(_PATH, self.prefix, "a path")
        if not self.prefix.endswith("/") or "//" in self.prefix:
            raise Refused(f"the prefix must begin and end with one slash: {self.prefix!r}")
        if bool(self.certificate) != bool(self.key):
            raise Refused("TLS needs both --certificate and --key")
        for path in filter(None, [self.certificate, self.key, self.cgi]):
            _file(path)
        if not self.upstream and not self.cgi:
            raise Refused("a site needs --upstream or --cgi, or it would serve nothing")

    @property
    def tls(self) -> bool:
        return bool(self.certificate)

    @property
    def address(self) -> str:
        """The address part of ``listen``, "" for all of them."""
        return self.listen.rpartition(":")[0]

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2] or (443 if self.tls else 80))

    @property
    def server(self) -> Address:
        """Where gunicorn listens."""
        return Address.parse(self.upstream)

    @property
    def script_name(self) -> str:
        """The prefix as WSGI has it: "" for the root, otherwise without the last slash."""
        return self.prefix.rstrip("/")

    @property
    def scripts(self) -> str:
        """The path at which the CGI scripts are."""
        return f"{self.prefix}cgi-bin/"

    @property
    def folder(self) -> str:
        """The folder of the CGI scripts, without a last slash."""
        return self.cgi.rstrip("/")


@dataclass(frozen=True, slots=True)
class Unit:
    """One gunicorn as a service.

    ``target``: ``module:app``.  ``folder``: where it is and where the service runs.
    ``bind``: where gunicorn listens.  ``user``: who runs it.  ``gunicorn``: its command.
    ``workers``: the number of processes.

    Raises `Refused` for values that systemd would misread.
    """

    target: str = "wsgi:app"
    folder: str = "/srv/ssekit"
    bind: str = "127.0.0.1:8000"
    user: str = "www-data"
    gunicorn: str = "/srv/ssekit/.venv/bin/gunicorn"
    workers: int = 1

    def __post_init__(self) -> None:
        _wanted(_TARGET, self.target, "module:app")
        Address.parse(self.bind)
        _wanted(_USER, self.user, "a user name")
        for path in (self.folder, self.gunicorn, self.bind.removeprefix("unix:")):
            if "%" in path:  # systemd replaces %h and the like
                raise Refused(f"systemd would read the % in {path!r}")
        _file(self.folder)
        _file(self.gunicorn)
        if not 0 < self.workers <= 1024:
            raise Refused(f"{self.workers} is not a number of workers from 1 to 1024")
