"""nginx in front of gunicorn, of fcgiwrap, or of both: one file for ``conf.d``.

``tests/test_ways.py`` measures what the lines do to a stream.  Two things are left out on purpose:
``proxy_buffering off``, because ssekit sends ``X-Accel-Buffering: no`` with its streams, and other
answers are better buffered; and keep-alive connections to the upstream, because gunicorn closes
idle ones after two seconds, and a request could be sent just then.
"""

from __future__ import annotations

import re

from ssekit.cli.config.site import Site

_TOP = """\
# nginx in front of ssekit, as `ssekit config {command}` prints it. Put it into /etc/nginx/conf.d/
# and reload: nginx -t && nginx -s reload
#
# Two settings belong in /etc/nginx/nginx.conf, outside of "http":
#   worker_shutdown_timeout 10s;    # else old workers survive a reload as long as their streams
#   worker_connections 8192;        # in "events": a stream takes two, and Debian has 768
"""

_LISTEN_TLS = """\
    listen {where}{ssl};
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache shared:ssekit:1m;
"""

_LISTEN = """\
    listen {where};
    # A browser opens six connections per host and stalls at the seventh stream. HTTP/2 has no such
    # limit, but browsers speak it over TLS only. Instead of the line above, or in addition to it:
    # listen 443 ssl http2;
    # ssl_certificate /etc/ssl/certs/ssekit.pem;
    # ssl_certificate_key /etc/ssl/private/ssekit.key;
"""

_LIMIT = """\
    # A last resort against floods: beyond so many connections of one address nginx answers 429. Any
    # status but 200 ends an EventSource permanently: it does not reconnect. So choose a number that
    # no office behind one address reaches, and let ssekit reject streams in the way that browsers
    # reconnect after: Hub(max_per_address=...) behind werkzeug's ProxyFix.
    # This line belongs outside of "server": limit_conn_zone $binary_remote_addr zone=ssekit:1m;
    # limit_conn ssekit 1000;
    # limit_conn_status 429;
"""

_UPSTREAM = """\
upstream ssekit {{
    server {server};
}}

"""

_PROXY = """\
    location {prefix} {{
        proxy_pass http://ssekit;

        # No proxy_buffering here: ssekit's streams say "X-Accel-Buffering: no", which turns it off
        # for them alone. If events arrive in batches, look for proxy_ignore_headers.

        # With HTTP/1.1, nginx can tell a stream that ended from one that was cut off.
        proxy_http_version 1.1;
        proxy_set_header Connection "";

        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header X-Forwarded-Proto $scheme;
{script_name}
        # A silent upstream is cut after this time. ssekit sends a heartbeat every 15 s.
        proxy_read_timeout 60s;
        proxy_socket_keepalive on;
    }}
"""

_SCRIPT_NAME = """\
        # gunicorn splits the path here, so that the application sees what follows the prefix.
        proxy_set_header SCRIPT_NAME {script_name};
"""

_CGI = """\
    # CGI scripts, run by fcgiwrap. Each open stream occupies one of its child processes, and by
    # default it has only one. For 64 streams:
    #   fcgiwrap -f -c 64 -s {fcgiwrap}
    # or for Debian's service, which passes its options on as a single word:
    #   echo DAEMON_OPTS=-fc64 >/etc/default/fcgiwrap && systemctl restart fcgiwrap
    location ~ ^{pattern}(?<script>[A-Za-z0-9_][A-Za-z0-9_.-]*)(?<rest>/.*)?$ {{
        fastcgi_pass {pass_to};

        # Without both lines nothing arrives before the script ends.
        fastcgi_param NO_BUFFERING 1;
        fastcgi_buffering off;

        # A silent script is cut after this time. ssekit sends a heartbeat every 15 s; only by that
        # does a script notice that its client has disconnected, because fcgiwrap does not tell it.
        fastcgi_read_timeout 60s;

        fastcgi_param GATEWAY_INTERFACE CGI/1.1;
        fastcgi_param SERVER_SOFTWARE nginx;
        fastcgi_param SERVER_PROTOCOL $server_protocol;
        fastcgi_param SERVER_NAME $host;
        fastcgi_param SERVER_PORT $server_port;
        fastcgi_param REQUEST_SCHEME $scheme;
        fastcgi_param HTTPS $https if_not_empty;
        fastcgi_param REMOTE_ADDR $remote_addr;
        fastcgi_param REMOTE_PORT $remote_port;
        fastcgi_param REQUEST_METHOD $request_method;
        fastcgi_param REQUEST_URI $request_uri;
        fastcgi_param QUERY_STRING $query_string;
        fastcgi_param CONTENT_TYPE $content_type;
        fastcgi_param CONTENT_LENGTH $content_length;
        fastcgi_param SCRIPT_FILENAME {folder}/$script;
        fastcgi_param SCRIPT_NAME {scripts}$script;
        fastcgi_param PATH_INFO $rest;
    }}
"""


def nginx(site: Site) -> str:
    """Return the file for ``conf.d``."""
    parts = [_TOP.format(command="nginx" if site.upstream else "fcgiwrap"), "\n"]
    if site.upstream:
        parts.append(_UPSTREAM.format(server=site.server))
    parts += ["server {\n", _listen(site), f"    server_name {site.name};\n"]
    if site.upstream:
        name = site.script_name and "\n" + _SCRIPT_NAME.format(script_name=site.script_name)
        parts += ["\n", _LIMIT, "\n", _PROXY.format(prefix=site.prefix, script_name=name)]
    if site.cgi:
        parts += ["\n", _cgi(site)]
    return "".join([*parts, "}\n"])


def _listen(site: Site) -> str:
    where = f"{site.address}:{site.port}" if site.address else str(site.port)
    if not site.tls:
        return _LISTEN.format(where=where)
    # Every nginx understands "http2" in this line; since 1.25.1 it is a directive too.
    return _LISTEN_TLS.format(
        where=where,
        ssl=" ssl http2" if site.http2 else " ssl",
        certificate=site.certificate,
        key=site.key,
    )


def _cgi(site: Site) -> str:
    socket = site.fcgiwrap
    return _CGI.format(
        fcgiwrap=socket if socket.startswith("unix:") else f"tcp:{socket}",
        pass_to=socket,
        pattern=re.sub(r"([.+])", r"\\\1", site.scripts),
        scripts=site.scripts,
        folder=site.folder,
    )
