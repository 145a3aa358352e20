"""What a request may ask of a stream, and how it is answered: methods, Accept, origins, last id.

The edges share it: a `Stream`, a folder of scripts and a CGI script answer alike.  It reads
``environ`` (PEP 3333) and returns values; it sends nothing and knows no source.  It does not use
werkzeug, because a CGI process starts without it.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any, NamedTuple

from ssekit.host.backoff import jittered
from ssekit.wire import Event

Headers = list[tuple[str, str]]
Pairs = Iterable[tuple[str, str]]

CONTENT_TYPE = "text/event-stream"
FIELDS = 100
"""Fields that a query may have."""

# What fetch-based EventSource clients send beside the simple headers, and so have to ask for.
_ALLOWED_HEADERS = "Last-Event-ID, Cache-Control, Authorization, Content-Type"
# As browsers write one: in lower case, a host in ASCII, no port that the scheme has anyway.
_ORIGIN = r"(?!https://[^:]*:443$|http://[^:]*:80$)[a-z][a-z0-9+.-]*://[a-z0-9._~:\[\]-]+"
_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_VALUE = r"[\t\x20-\x7e\x80-\xff]*"
# PEP 3333, "Other HTTP Features": hop-by-hop headers are the server's, not the application's; how
# long a body is, is settled by the body.
NOT_OURS = {
    "connection",
    "content-length",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}

_OURS: Headers = [
    ("Content-Type", f"{CONTENT_TYPE}; charset=utf-8"),
    # no-transform: a proxy must not compress, and so hold back, the stream (RFC 9111, 5.2.2.6).
    ("Cache-Control", "no-cache, no-transform"),
    ("X-Accel-Buffering", "no"),
]


class Answer(NamedTuple):
    """How a request is answered.  ``body`` is None where the stream itself follows."""

    status: str
    headers: Headers
    body: bytes | None = b""

    @property
    def streams(self) -> bool:
        """Whether the stream follows."""
        return self.body is None

    def give(self, environ: Mapping[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        """Give an answer without a stream to the server (PEP 3333); none has a body after HEAD."""
        start_response(self.status, self.headers)
        return [self.body] if self.body and environ.get("REQUEST_METHOD") != "HEAD" else []


class Offer:
    """What a stream offers: its methods, its extra headers, and the origins that may read it."""

    def __init__(
        self,
        *,
        headers: Pairs | Mapping[str, str] = (),
        methods: Iterable[str] = ("GET",),
        origins: Iterable[str] = (),
    ) -> None:
        if isinstance(methods, str):
            raise TypeError(f"methods must be a tuple of names, not the str {methods!r}")
        self._methods = tuple(method.upper() for method in methods)
        also = ["HEAD", "OPTIONS"] if "GET" in self._methods else ["OPTIONS"]
        self._allow = ", ".join(dict.fromkeys([*self._methods, *also]))
        self._any_origin, self._origins = _origins(origins)
        self._crosses = self._any_origin or bool(self._origins)
        self._headers = _stream_headers(_pairs(headers))

    def answer(self, environ: Mapping[str, Any], further: Pairs | Mapping[str, str] = ()) -> Answer:
        """Return the answer to a request; ``further`` headers are the stream's of this once.

        Raises ValueError for a header that is not the application's to set.
        """
        headers = _stream_headers(_pairs(further), self._headers) if further else self._headers
        cors = self.cors(environ) if self._crosses else []
        method = environ.get("REQUEST_METHOD", "GET")
        if method == "OPTIONS":
            return Answer("204 No Content", [("Allow", self._allow), *cors, *self._preflight(cors)])
        if method not in self._methods and not (method == "HEAD" and "GET" in self._methods):
            allow = [("Allow", self._allow), *cors]
            return plain_answer("405 Method Not Allowed", f"Use {self._allow}.", allow)
        if environ.get("QUERY_STRING", "").count("&") >= FIELDS:
            return plain_answer("400 Bad Request", f"The query has over {FIELDS} fields.", cors)
        accept = environ.get("HTTP_ACCEPT", "")
        if accept not in _STREAMS and not _accepts(accept):
            return plain_answer("406 Not Acceptable", f"This is a stream of {CONTENT_TYPE}.", cors)
        # A body that is dropped behind our back cannot fail, so a stream behind HEAD never ends.
        return Answer("200 OK", [*headers, *cors], b"" if method == "HEAD" else None)

    def no_content(self, environ: Mapping[str, Any]) -> Answer:
        """Return the answer that tells an EventSource not to come back (HTML standard, 9.2.3)."""
        return Answer("204 No Content", self.cors(environ))

    def cors(self, environ: Mapping[str, Any]) -> Headers:
        """Return the headers that let a page of another origin read the answer, or keep it out."""
        if self._any_origin:
            return [("Access-Control-Allow-Origin", "*")]
        if not self._origins:
            return []
        # Fetch standard, "CORS protocol and credentials": with credentials the origin must be
        # named, and caches must know that the answer depends on it.
        origin = environ.get("HTTP_ORIGIN", "")
        if origin not in self._origins:
            return [("Vary", "Origin")]
        return [
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Allow-Credentials", "true"),
            ("Vary", "Origin"),
        ]

    def _preflight(self, cors: Headers) -> Headers:
        if not any(name == "Access-Control-Allow-Origin" for name, _ in cors):
            return []
        return [
            ("Access-Control-Allow-Methods", ", ".join(self._methods)),
            ("Access-Control-Allow-Headers", _ALLOWED_HEADERS),
            ("Access-Control-Max-Age", "600"),
        ]


def last_event_id(environ: Mapping[str, Any]) -> str | None:
    """Return the id after which the client wants to resume, or None if it has seen none.

    The header wins over ``?last_event_id=``, which is for a first connection: an EventSource
    cannot set a header (HTML standard, 9.2.3).  The header is UTF-8, which WSGI shows as latin-1.
    Raises nothing, whatever the client has sent.
    """
    header = environ.get("HTTP_LAST_EVENT_ID")
    if header is not None:
        return str(header).encode("latin-1", "replace").decode("utf-8", "replace")
    values = query_values(environ, "last_event_id")
    return values[-1] if values else None


def query_values(environ: Mapping[str, Any], name: str) -> list[str]:
    """Return the values of a field of the query, in their order, possibly none.

    URL standard, section 5.1 (application/x-www-form-urlencoded).  Raises nothing.
    """
    query = str(environ.get("QUERY_STRING", ""))
    if not query.isascii():
        query = query.encode("latin-1", "replace").decode("utf-8", "replace")
    if "%" in query or "+" in query:
        from urllib.parse import parse_qsl

        pairs = parse_qsl(query, keep_blank_values=True, errors="replace")
        return [value for field, value in pairs if field == name]
    # Nothing to decode, as when many come back at once with an id or a ticket.
    if name not in query:
        return []
    fields = [field.partition("=") for field in query.split("&")]
    return [value for field, _, value in fields if field == name]


RETRY = 3000
"""Milliseconds, give or take, that clients wait before they connect again."""


def opening(retry: int | None) -> bytes:
    """Return the first line of a stream: how many milliseconds to wait before connecting again.

    None is 2,000 to 4,000, different for each client.  Raises `InvalidEvent` for what it cannot be.
    """
    if retry is None:
        return b"retry: %d\n" % jittered(RETRY, 2 / 3, 4 / 3)
    return Event(retry=retry).encode()


def closing_retry(retry: int | None = None) -> bytes:
    """Return the last line of a stream that we end: when the client may come back, with jitter.

    Without the jitter all clients of a process that restarts would come back at once.
    """
    base = RETRY if retry is None else retry
    return b"retry: %d\n" % round(jittered(base))


def misreads_an_end(environ: Mapping[str, Any]) -> bool:
    """Tell whether the client takes an orderly end for the end of all events, as Datastar does."""
    value = environ.get("HTTP_DATASTAR_REQUEST")
    return value is not None and str(value).lower() == "true"


def plain_answer(status: str, why: str, headers: Headers) -> Answer:
    """Return a short answer in plain text."""
    return Answer(
        status, [("Content-Type", "text/plain; charset=utf-8"), *headers], f"{why}\n".encode()
    )


def _accepts(accept: str) -> bool:
    """Tell whether an Accept header admits an event stream (RFC 9110, section 12.5.1)."""
    best = (-1, 0.0)  # how specific the range is, its weight
    for part in accept.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        specific = _RANGES.get(name, -1)
        if specific > best[0]:
            best = (specific, _weight(parameters))
    return not accept.strip(", \t") or best[1] > 0


# What nearly all clients send.
_STREAMS = {CONTENT_TYPE, "*/*", ""}
# A lone * is what Java's own client writes for all.
_RANGES = {"*": 0, "*/*": 0, "text/*": 1, CONTENT_TYPE: 2}


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def _origins(origins: Iterable[str]) -> tuple[bool, frozenset[str]]:
    if origins == "*":
        return True, frozenset()
    if isinstance(origins, str):
        raise TypeError(f'origins must be "*" or a tuple of origins, not the str {origins!r}')
    allowed = frozenset(origins)
    for origin in allowed:
        if not _matches(_ORIGIN, origin):
            raise ValueError(
                f"{origin!r} is not an origin: write it as the browser does, scheme://host[:port], "
                'in lower case and without a path; "*" alone allows all, without credentials'
            )
    return False, allowed


def _pairs(headers: Pairs | Mapping[str, str]) -> Pairs:
    return headers.items() if isinstance(headers, Mapping) else headers


def _matches(pattern: str, text: str) -> bool:
    import re  # A CGI process starts faster without.

    return re.fullmatch(pattern, text) is not None


def _stream_headers(extra: Pairs, ours: Headers = _OURS) -> Headers:
    """Return the headers of a stream, with a user's own, which replace ours of the same name."""
    return joined(ours, extra, NOT_OURS | {"content-type"})


def joined(ours: Headers, theirs: Pairs | Mapping[str, str], settled: Container[str]) -> Headers:
    """Return headers with a user's own, which replace ours of the same name.

    Raises ValueError for what is no header, and for the names that are ``settled``.
    """
    further: Headers = []
    for name, value in _pairs(theirs):
        if not _matches(_NAME, name) or not _matches(_VALUE, value):
            raise ValueError(f"not a header: {name!r}: {value!r}")
        if name.lower() in settled:
            raise ValueError(f"the header {name} is not the application's to set here")
        further.append((name, value))
    replaced = {name.lower() for name, _ in further}
    return [*(pair for pair in ours if pair[0].lower() not in replaced), *further]
