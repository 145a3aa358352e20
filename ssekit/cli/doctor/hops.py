"""The programs between browser and application: how to recognize them, and what to change in each.

A program is recognized by the headers that it adds.  That is never certain, because headers can be
removed or forged, so a report says what a program was recognized by.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ssekit.cli.doctor.exchange import Exchange
from ssekit.cli.doctor.finding import Finding
from ssekit.cli.doctor.seen import Seen

NGINX, APACHE, LIGHTTPD, HAPROXY = "nginx", "Apache", "lighttpd", "haproxy"
CLOUDFLARE, CLOUDFRONT, VARNISH = "Cloudflare", "CloudFront", "Varnish"
SERVERS = ("gunicorn", "uWSGI", "waitress", "Werkzeug", "uvicorn", "wsgiref")
"""Programs that run the application themselves."""

# From the outside in: an outer program overwrites or adds to the headers of an inner one.
_SIGNS: tuple[tuple[str, str, str], ...] = (
    ("CF-Ray", "", CLOUDFLARE),
    ("Server", "cloudflare", CLOUDFLARE),
    ("X-Amz-Cf-Id", "", CLOUDFRONT),
    ("Via", "cloudfront", CLOUDFRONT),
    ("X-Cache", "cloudfront", CLOUDFRONT),
    ("X-Fastly-Request-ID", "", "Fastly"),
    ("X-Served-By", "^cache-", "Fastly"),
    ("X-Akamai-Request-ID", "", "Akamai"),
    ("Server", "akamai", "Akamai"),
    ("X-Varnish", "", VARNISH),
    ("Via", "varnish", VARNISH),
    ("X-Cache", "varnish", VARNISH),
    ("Via", "squid", "Squid"),
    ("X-Cache", "squid", "Squid"),
    ("Via", "vegur|heroku", "Heroku's router"),
    ("Via", "^[0-9.]+ google$", "Google's load balancer"),
    ("Server", "envoy", "Envoy"),
    ("X-Envoy-Upstream-Service-Time", "", "Envoy"),
    ("Server", "caddy", "Caddy"),
    ("Server", "haproxy", HAPROXY),
    ("Server", "nginx|openresty|tengine", NGINX),
    ("Server", "apache", APACHE),
    ("Server", "lighttpd", LIGHTTPD),
    ("Server", "gunicorn", "gunicorn"),
    ("Server", "uwsgi", "uWSGI"),
    ("Server", "waitress", "waitress"),
    ("Server", "werkzeug", "Werkzeug"),
    ("Server", "uvicorn", "uvicorn"),
    ("Server", "WSGIServer|SimpleHTTP", "wsgiref"),
)


@dataclass(frozen=True)
class Hop:
    """A program, and the header that it was recognized by."""

    name: str
    sign: str

    @property
    def in_front(self) -> bool:
        """Whether it is in front of the program that runs the application."""
        return self.name not in SERVERS


def hops(seen: Seen) -> tuple[Hop, ...]:
    """Return the programs that were recognized, the outermost first."""
    found = _recognized(seen.exchanges)
    if NGINX not in {hop.name for hop in found} and (header := _removed(seen)):
        # nginx obeys these and does not pass them on, whatever its Server header says.
        found = (*found, Hop(NGINX, f"the upstream sends {header}, which is missing here"))
    return found


def _removed(seen: Seen) -> str:
    """A header for nginx that the upstream sends and that does not arrive, or ""."""
    if seen.upstream is None or not seen.look.answered:
        return ""
    here = {name.lower() for name, _ in seen.look.headers}
    sent = (name for name, _ in seen.upstream.look.headers)
    return next((n for n in sent if n.lower().startswith("x-accel-") and n.lower() not in here), "")


def _recognized(exchanges: Iterable[Exchange]) -> tuple[Hop, ...]:
    found: dict[str, Hop] = {}
    answers = list(exchanges)
    for header, pattern, name in _SIGNS:
        for answer in answers:
            for value in answer.all(header):
                if re.search(pattern, value, re.IGNORECASE):
                    found.setdefault(name, Hop(name, f"{header}: {value[:60]}"))
    return tuple(found.values())


def suspect(seen: Seen) -> Hop | None:
    """Return the program that most likely holds a stream back: the outermost in front.

    If the upstream was examined too, a program that is there as well is not to blame.
    """
    behind = {hop.name for hop in hops(seen.upstream)} if seen.upstream is not None else set()
    in_front = [hop for hop in hops(seen) if hop.in_front and hop.name not in behind]
    return in_front[0] if in_front else None


def line(finding: str, seen: Seen, hop: Hop | None) -> str:
    """Return what to change for a finding, in the program if we know it."""
    lines = LINES[finding]
    if finding == "buffered" and hop is not None and hop.name == NGINX and _says_no(seen):
        return (
            "in nginx's location: remove proxy_ignore_headers X-Accel-Buffering; the application "
            "already sends the header (or set proxy_buffering off;)"
        )
    return lines.get(hop.name if hop else "", lines[""])


def blaming(name: str, harm: int, what: str, why: str, seen: Seen) -> Finding:
    """Return the finding with the program to change first, and what to change in it."""
    hop = suspect(seen)
    return Finding(name, harm, what, why, line(name, seen, hop), hop.name if hop else "")


def _says_no(seen: Seen) -> bool:
    """Whether the application is known to send ``X-Accel-Buffering: no``: ssekit does."""
    upstream = seen.upstream
    sends = upstream is not None and upstream.look.get("X-Accel-Buffering").lower() == "no"
    return sends or seen.probe is not None


NOT_COMPRESSED = "SetOutputFilter none, FilterChain !, SetEnv no-gzip 1 and SetEnv no-brotli 1"
"""Without the first two mod_deflate still keeps the first 68 bytes of a CGI script."""

LINES: dict[str, dict[str, str]] = {
    "buffered": {
        NGINX: "in nginx's location: proxy_buffering off; (CGI: fastcgi_buffering off; and "
        "fastcgi_param NO_BUFFERING 1;), or have the application send X-Accel-Buffering: no",
        APACHE: f"in Apache, where the stream is: {NOT_COMPRESSED}; and flushpackets=on after "
        "ProxyPass",
        LIGHTTPD: "in lighttpd.conf: server.stream-response-body = 2",
        HAPROXY: "in haproxy's defaults: option http-no-delay, and no option "
        "http-buffer-request or http-response wait-for-body",
        VARNISH: "in Varnish: return (pipe); in vcl_recv for the stream's address",
        CLOUDFLARE: "at Cloudflare: a cache rule that bypasses the cache for the stream's address",
        "": "exclude the stream's address from whatever collects the answer (middleware, a "
        "compressor, a proxy); with --upstream URL the doctor tells whether it is the application",
    },
    "delayed": {
        HAPROXY: "in haproxy's defaults: option http-no-delay",
        NGINX: "in nginx: tcp_nodelay on;",
        "": "in haproxy, which cannot be recognized: option http-no-delay in its defaults; in "
        "other programs: TCP_NODELAY",
    },
    "headers-late": {
        APACHE: f"in Apache, where the stream is a script and mod_deflate is on: {NOT_COMPRESSED}; "
        "otherwise send a comment line, a lone colon, at once; ssekit.Stream does",
        "": "send a comment line, a lone colon, at once; ssekit.Stream does",
    },
    "compressed": {
        NGINX: "in nginx's location: gzip off; or remove text/event-stream from gzip_types",
        APACHE: f"in Apache, where the stream is: {NOT_COMPRESSED}",
        LIGHTTPD: "in lighttpd.conf: remove text/event-stream from deflate.mimetypes",
        "": "exclude the stream from the compressing middleware (Django's GZipMiddleware passes an "
        "answer that has Content-Encoding: identity), or send Cache-Control: no-transform",
    },
    "lingers": {
        NGINX: "in nginx's location: proxy_ignore_client_abort off; (CGI: "
        "fastcgi_ignore_client_abort off;)",
        HAPROXY: "in haproxy's defaults: option abortonclose",
        "": "the hop that keeps its own connection open after the browser has closed its one; in "
        "haproxy: option abortonclose",
    },
    "idle-cut": {
        NGINX: "a heartbeat more often, every 15 s; and in nginx: proxy_read_timeout 60s; or more "
        "(CGI: fastcgi_read_timeout)",
        APACHE: "a heartbeat more often, every 15 s; and in Apache: timeout=60 after ProxyPass "
        "(CGI: CGIDScriptTimeout 60)",
        LIGHTTPD: "a heartbeat more often, every 15 s; and in lighttpd.conf: "
        "server.max-write-idle = 60",
        HAPROXY: "a heartbeat more often, every 15 s; and in haproxy: timeout server 60s, timeout "
        "client 60s",
        "": "a heartbeat every 15 s: a comment line, a lone colon",
    },
}
