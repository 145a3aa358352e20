"""lighttpd running CGI scripts, in front of gunicorn, or both: a complete ``lighttpd.conf``.

The setting that matters most is ``server.stream-response-body``: with its default, 0, lighttpd
keeps an answer until it is complete.
"""

from __future__ import annotations

import re

from ssekit.cli.config.site import Site

_TOP = """\
# lighttpd in front of ssekit, as `ssekit config lighttpd` prints it. It is complete: use it as
# /etc/lighttpd/lighttpd.conf, or try it with: lighttpd -D -f FILE

server.modules = ( {modules} )
server.port = {port}
server.bind = "{address}"
server.document-root = "/var/empty"

# It starts as root and continues as this user, who must be able to read the files below.
server.username = "www-data"
server.groupname = "www-data"

# Without this line nothing arrives before the answer is complete. 2 also stops reading from the
# source while the client does not read.
server.stream-response-body = 2

# Each stream is one connection; if it is proxied or CGI, it needs a second descriptor.
server.max-fds = 16384
server.max-connections = 8192

# A client that does not read, and an answer that sends nothing, are cut after this time. ssekit
# sends a heartbeat every 15 s.
server.max-write-idle = 60

# At a reload (SIGUSR1) old streams are ended after this time; their clients reconnect.
server.feature-flags = ( "server.graceful-shutdown-timeout" => 10{h2} )
"""

_TLS = """
# On Debian: apt-get install lighttpd-mod-openssl
ssl.engine = "enable"
ssl.pemfile = "{certificate}"
ssl.privkey = "{key}"
"""

_PROXY = """\
$HTTP["url"] =~ "^{pattern}" {{
    # gunicorn trusts these two headers, so they must never come from a client: "" removes them.
    setenv.set-request-header = ( "PATH_INFO" => "", "SCRIPT_NAME" => "{script_name}" )
    proxy.server = ( "" => (( {server} )) )
}}
"""

_CGI = """\
$HTTP["url"] =~ "^{pattern}" {{
    alias.url = ( "{scripts}" => "{folder}/" )
    # A file in the folder is run by the interpreter in its first line, if it is executable.
    cgi.assign = ( "" => "" )
    cgi.execute-x-only = "enable"
}}
"""


def lighttpd(site: Site) -> str:
    """Return a whole ``lighttpd.conf``."""
    wanted = [("mod_openssl", site.tls), ("mod_alias", site.cgi), ("mod_cgi", site.cgi)]
    wanted += [("mod_setenv", site.upstream), ("mod_proxy", site.upstream)]
    text = _TOP.format(
        modules=", ".join(f'"{module}"' for module, needed in wanted if needed),
        port=site.port,
        address=site.address or "0.0.0.0",  # noqa: S104 (a public server)
        h2="" if site.http2 else ', "server.h2proto" => "disable"',
    )
    if site.name != "_":
        text += f'server.name = "{site.name}"\n'
    if site.tls:
        text += _TLS.format(certificate=site.certificate, key=site.key)
    # The first that matches wins: the scripts, and everything else for gunicorn.
    places = [_cgi(site)] if site.cgi else []
    places += [_proxy(site)] if site.upstream else []
    return f"{text}\n{'else '.join(places)}"


def _pattern(path: str) -> str:
    return re.sub(r"([.+])", r"\\\1", path)


def _cgi(site: Site) -> str:
    return _CGI.format(pattern=_pattern(site.scripts), scripts=site.scripts, folder=site.folder)


def _proxy(site: Site) -> str:
    server = site.server
    where = (
        f'"socket" => "{server.path}"'
        if server.path
        else f'"host" => "{server.host.strip("[]")}", "port" => {server.port}'
    )
    return _PROXY.format(pattern=_pattern(site.prefix), script_name=site.script_name, server=where)
