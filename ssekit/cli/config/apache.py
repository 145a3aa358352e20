"""Apache in front of gunicorn, running CGI scripts, or both: one file for ``sites-available``.

Apache needs a thread for each proxied stream and a process for each CGI stream, so the file begins
with how many there may be.  mod_deflate and mod_brotli hold a stream back until it ends; the file
disables them for streams.
"""

from __future__ import annotations

from ssekit.cli.config.site import Site

_TOP = """\
# Apache in front of ssekit, as `ssekit config apache` prints it. Put it into
# /etc/apache2/sites-available/ssekit.conf and then:
#   a2enmod {modules} && a2ensite ssekit && systemctl reload apache2
#
# Each open stream occupies one of Apache's threads, and Debian's MaxRequestWorkers is 150. For
# more, in /etc/apache2/mods-available/mpm_event.conf: ServerLimit 64, MaxRequestWorkers 1600.
# After a reload, old streams live on in the old processes, which count towards these limits until
# the streams have ended.
"""

_TLS = """\
    SSLEngine on
    SSLCertificateFile {certificate}
    SSLCertificateKeyFile {key}
    SSLProtocol -all +TLSv1.2 +TLSv1.3
"""

_HTTP2 = """\
    # Over HTTP/1.1 a browser opens six connections per host and stalls at the seventh stream.
    Protocols h2 http/1.1
"""

_NO_COMPRESSION = """\
        # Compression holds a stream back until it ends. The two variables are not enough: even if
        # mod_deflate does not compress, it keeps the first 68 bytes of a script.
        SetOutputFilter none
        <IfModule mod_filter.c>
            FilterChain !
        </IfModule>
        SetEnv no-gzip 1
        SetEnv no-brotli 1
"""

_PROXY = """\
    <Location "{prefix}">
        # A new connection per request: gunicorn closes idle ones after two seconds, and a request
        # could be sent just then. A silent upstream is cut after a minute; ssekit sends a heartbeat
        # every 15 s.
        ProxyPass "{url}" disablereuse=on timeout=60

{no_compression}
        # gunicorn trusts these two headers, so they must never come from a client.
        RequestHeader unset PATH_INFO
        RequestHeader {script_name}
        RequestHeader set X-Forwarded-Proto expr=%{{REQUEST_SCHEME}}
    </Location>
    ProxyPreserveHost On
"""

_CGI = """\
    ScriptAlias "{scripts}" "{folder}/"
    <Directory "{folder}">
        Options +ExecCGI -Indexes -MultiViews
        AllowOverride None
        Require all granted

        # Without this line a script never sees the Authorization header.
        CGIPassAuth On

{no_compression}    </Directory>
{except_scripts}
    # A silent script is cut after this many seconds. ssekit sends a heartbeat every 15 s; only by
    # that does Apache notice that a client has disconnected, and ends the script.
    CGIDScriptTimeout 60
"""

_EXCEPT = """\
    ProxyPass "{scripts}" "!"
"""


def apache(site: Site) -> str:
    """Return the file for ``sites-available``."""
    parts = [_TOP.format(modules=" ".join(_modules(site))), "\n"]
    if site.port not in (80, 443):
        # Debian's ports.conf already listens at these two, and Apache refuses a second Listen.
        parts.append(f"Listen {_where(site, '')}\n\n")
    parts.append(f"<VirtualHost {_where(site, '*')}>\n")
    if site.name != "_":
        parts.append(f"    ServerName {site.name}\n")
    if site.tls:
        parts.append(_TLS.format(certificate=site.certificate, key=site.key))
        parts += [_HTTP2] if site.http2 else []
    if site.cgi:
        parts += ["\n", _cgi(site)]
    if site.upstream:
        parts += ["\n", _proxy(site)]
    return "".join([*parts, "</VirtualHost>\n"])


def _modules(site: Site) -> list[str]:
    modules = ["proxy_http", "headers"] if site.upstream else []
    modules += ["cgid", "alias"] if site.cgi else []
    modules += ["ssl"] if site.tls else []
    return [*modules, "http2"] if site.tls and site.http2 else modules


def _where(site: Site, every: str) -> str:
    address = site.address or every
    return f"{address}:{site.port}" if address else str(site.port)


def _proxy(site: Site) -> str:
    server = site.server
    base = f"unix:{server.path}|http://ssekit" if server.path else f"http://{server}"
    name = site.script_name
    return _PROXY.format(
        prefix=site.prefix,
        url=f"{base}{site.prefix}",
        no_compression=_NO_COMPRESSION,
        script_name=f"set SCRIPT_NAME {name}" if name else "unset SCRIPT_NAME",
    )


def _cgi(site: Site) -> str:
    return _CGI.format(
        scripts=site.scripts,
        folder=site.folder,
        no_compression=_NO_COMPRESSION,
        except_scripts=_EXCEPT.format(scripts=site.scripts) if site.upstream else "",
    )
