"""Checks of the answer's status, type and headers, and of the answers to other methods."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from ssekit.cli.doctor import hops
from ssekit.cli.doctor.exchange import BAD_CERTIFICATE, Exchange
from ssekit.cli.doctor.finding import Finding
from ssekit.cli.doctor.seen import Seen

_UNCACHED = re.compile(r"\b(no-cache|no-store|private|max-age\s*=\s*0)\b", re.IGNORECASE)

LEAST_WAIT = 0.5
"""Seconds without an answer that do not count as a hang yet."""
FAILS_PERMANENTLY = (
    "an EventSource then fails permanently: it does not reconnect (HTML standard, 9.2.3)"
)


def unreachable(seen: Seen) -> Finding | None:
    if not seen.look.failure:
        return None
    change = "start the server, or correct the address"
    if seen.look.failure.startswith(BAD_CERTIFICATE):
        change = "serve a certificate that browsers trust; --insecure examines the rest without"
    return Finding(
        "unreachable",
        100,
        f"{urlsplit(seen.url).netloc.rpartition('@')[2]}: {seen.look.failure}",
        "there is no stream to examine, and a browser gets none",
        change,
    )


def status(seen: Seen) -> Finding | None:
    answer = seen.answer
    if not answer.answered or answer.status == 200 or _redirected(answer):
        return None
    why = FAILS_PERMANENTLY
    if answer.status == 204:
        why = "204 tells an EventSource not to reconnect (HTML standard, 9.2.3)"
    hop = hops.suspect(seen) if answer.status in _OF_A_PROXY else None
    change = _STATUS.get(answer.status, "answer 200; the server's log should say why it does not")
    shown = f"the status is {answer.status}{_words(answer)}"
    return Finding("status", 97, shown, why, change, hop.name if hop is not None else "")


def _words(answer: Exchange) -> str:
    """What the server says about it, if that is short and meant for people."""
    text = answer.body.decode(errors="replace").strip()
    told = answer.media_type in ("text/plain", "application/json") and "\n" not in text
    return f": {text[:160]}" if text and told else ""


_OF_A_PROXY = {502, 504}
_AUTHORIZE = "an EventSource can send cookies, but no headers; for the doctor, use --header"
_NO_UPSTREAM = "start the server behind the proxy, or correct its address in the proxy's settings"
_STATUS = {
    204: "answer 200; or nothing, if clients are not meant to reconnect",
    401: _AUTHORIZE,
    403: _AUTHORIZE,
    404: "correct the address, or serve the stream there",
    405: "allow GET",
    406: "accept text/event-stream, which is all that an EventSource accepts",
    429: "reject streams with 200, a retry: line and a close, also at overload",
    502: _NO_UPSTREAM,
    503: "reject streams with 200, a retry: line and a close, also at overload; or start the "
    "server that is missing",
    504: _NO_UPSTREAM,
}


def _redirected(answer: Exchange) -> bool:
    return answer.status in (301, 302, 303, 307, 308) and bool(answer.get("Location"))


def endless_redirects(seen: Seen) -> Finding | None:
    if not _redirected(seen.look):
        return None
    steps = " to ".join([one.url for one in seen.redirects][:6])
    return Finding(
        "redirect",
        98,
        f"redirects do not end: {steps} to {seen.look.get('Location')[:200]}",
        FAILS_PERMANENTLY,
        "serve the stream at an address of its own",
    )


def media_type(seen: Seen) -> Finding | None:
    answer = seen.answer
    if answer.status != 200 or answer.media_type == "text/event-stream":
        return None
    return Finding(
        "type",
        96,
        f"the type is {answer.get('Content-Type')[:80] or 'missing'}",
        FAILS_PERMANENTLY,
        "send Content-Type: text/event-stream",
    )


def charset(seen: Seen) -> Finding | None:
    found = re.search(r"charset\s*=\s*\"?([^\s;\"]+)", seen.answer.get("Content-Type"), re.I)
    if not seen.answer.is_stream or found is None or found[1].lower() in ("utf-8", "utf8"):
        return None
    return Finding(
        "charset",
        42,
        f"the charset is {found[1][:40]}",
        "event streams are always decoded as UTF-8 (HTML standard, 9.2.5); other labels are wrong",
        "send Content-Type: text/event-stream; charset=utf-8, and UTF-8",
    )


def redirect(seen: Seen) -> Finding | None:
    if not seen.redirects or _redirected(seen.look):
        return None
    first = seen.redirects[0]
    return Finding(
        "redirect",
        36,
        f"{first.status} from {first.url} to {seen.url}",
        "browsers follow it again at every reconnect, other clients may not follow it at all, and "
        "to another origin it needs CORS",
        f"give clients the address {seen.url}",
    )


def content_length(seen: Seen) -> Finding | None:
    answer = seen.answer
    if not answer.is_stream or not answer.get("Content-Length"):
        return None
    return Finding(
        "content-length",
        50,
        f"Content-Length: {answer.get('Content-Length')[:20]}",
        "a stream has no length; a hop that knows it has collected the whole answer first",
        "send no Content-Length, and turn off buffering",
    )


def connection_header(seen: Seen) -> Finding | None:
    answer = seen.answer
    values = answer.all("Connection")
    framed = answer.get("Transfer-Encoding") or answer.get("Content-Length")
    if not answer.is_stream:
        return None
    if len(values) > 1:
        wrong = f"there are {len(values)} Connection headers: {', '.join(values)[:80]}"
    elif values and not framed and "keep-alive" in values[0].lower():
        # No server sends that by itself: it has to close the connection to end the answer.
        wrong = "Connection: keep-alive, on an answer that only the connection's end ends"
    else:
        return None
    return Finding(
        "connection",
        40,
        wrong,
        "only the server may send it, not the application: the two contradict each other, some "
        "WSGI servers refuse it, and HTTP/2 forbids it",
        "remove the Connection header from the application's answer",
    )


def cacheable(seen: Seen) -> Finding | None:
    answer = seen.answer
    if not answer.is_stream or _UNCACHED.search(", ".join(answer.all("Cache-Control"))):
        return None
    shown = answer.get("Cache-Control")[:80]
    return Finding(
        "cacheable",
        46,
        f"Cache-Control: {shown}" if shown else "no Cache-Control",
        "a cache may store the stream, and wait for its end or serve it to others",
        "send Cache-Control: no-cache, no-transform",
    )


def from_a_cache(seen: Seen) -> Finding | None:
    # The first of them may have filled the cache.
    for answer in filter(None, [seen.look, seen.plain, seen.long]):
        age, cache = answer.get("Age"), answer.get("X-Cache")
        hit = "hit" in cache.lower() or "hit" in answer.get("CF-Cache-Status").lower()
        if answer.is_stream and (hit or (age.isdigit() and int(age[:9]) > 0)):
            break
    else:
        return None
    return Finding(
        "cached",
        88,
        f"Age: {age[:20] or 'none'}, X-Cache: {cache[:40] or 'none'}",
        "this stream came from a cache: everybody gets the same old events",
        "bypass the cache for the stream's address, and send Cache-Control: no-cache",
    )


def no_http2(seen: Seen) -> Finding | None:
    if seen.http2 is not False:
        return None
    return Finding(
        "http1",
        55,
        "TLS does not offer HTTP/2",
        "over HTTP/1.1 browsers open six connections per host, for all tabs together: the seventh "
        "stream waits without an error, and so does every other request",
        "in nginx: listen 443 ssl http2; in Apache: Protocols h2 http/1.1",
    )


def head_hangs(seen: Seen) -> Finding | None:
    head = seen.head
    if head is None or head.answered or seen.look.head_at is None:
        return None
    if not head.failure and head.left_at < max(LEAST_WAIT, 5 * seen.look.head_at):
        return None  # Not long enough: the server may only be busy.
    return Finding(
        "head",
        52,
        head.failure or f"HEAD has no answer after {head.left_at:.1f} s",
        "monitors and link checkers send HEAD; the stream then never notices that nobody reads it, "
        "and occupies a worker permanently",
        "answer HEAD with the headers alone; ssekit.Stream does",
    )


def post(seen: Seen) -> Finding | None:
    answer = seen.post
    if answer is None or not answer.is_stream:
        return None
    return Finding(
        "post",
        30,
        "POST opens a stream",
        "an EventSource never sends POST, but forms of other sites do, and it is not safe to retry",
        "answer 405 with Allow: GET, HEAD, OPTIONS; ssekit.Stream does",
    )
