"""Checks of what pages of other sites may do (Fetch standard, "CORS protocol")."""

from __future__ import annotations

from urllib.parse import urlsplit

from ssekit.cli.doctor.finding import Finding
from ssekit.cli.doctor.seen import UNKNOWN_ORIGIN, Seen


def refused(seen: Seen) -> Finding | None:
    """CORS headers that no browser accepts for the page's origin."""
    answer = seen.answer
    if not seen.origin or not answer.is_stream or _same_origin(seen):
        return None
    values = answer.all("Access-Control-Allow-Origin")
    credentials = answer.get("Access-Control-Allow-Credentials")
    if not values:
        wrong = "no Access-Control-Allow-Origin"
    elif len(values) > 1 or "," in values[0]:
        wrong = f"more than one Access-Control-Allow-Origin: {', '.join(values)[:120]}"
    elif values[0] not in ("*", seen.origin):
        wrong = f"Access-Control-Allow-Origin: {values[0][:120]}"
    elif credentials and credentials != "true":
        wrong = f"Access-Control-Allow-Credentials: {credentials[:40]}, which is not true"
    elif credentials and values[0] == "*":
        wrong = "Access-Control-Allow-Origin: * with credentials"
    else:
        return None
    return Finding(
        "cors",
        86,
        wrong,
        f"no browser lets a page of {seen.origin} read this stream",
        f"Access-Control-Allow-Origin: {seen.origin}, Access-Control-Allow-Credentials: true, "
        f'Vary: Origin; in ssekit: Stream(source, origins=("{seen.origin}",))',
    )


def _same_origin(seen: Seen) -> bool:
    own = urlsplit(seen.url)
    return seen.origin == f"{own.scheme}://{own.netloc}"


def reflected(seen: Seen) -> Finding | None:
    answer = seen.stranger
    if answer is None or not answer.answered:
        return None
    allowed = answer.get("Access-Control-Allow-Origin")
    if allowed != UNKNOWN_ORIGIN or answer.get("Access-Control-Allow-Credentials") != "true":
        return None
    return Finding(
        "cors-reflects",
        84,
        f"any origin is allowed, with credentials: {UNKNOWN_ORIGIN} was",
        "every site that a user visits can read the stream as that user",
        "allow a list of origins, never the one in the request",
    )


def varies(seen: Seen) -> Finding | None:
    answer = seen.answer
    allowed = answer.get("Access-Control-Allow-Origin")
    vary = ", ".join(answer.all("Vary")).lower()
    if not seen.origin or not answer.is_stream or allowed in ("", "*") or "origin" in vary:
        return None
    return Finding(
        "cors-vary",
        34,
        "the answer depends on the origin, but there is no Vary: Origin",
        "a cache may give one origin's answer to another",
        "send Vary: Origin",
    )


def preflight(seen: Seen) -> Finding | None:
    answer = seen.preflight
    if answer is None or _same_origin(seen) or refused(seen) is not None:
        return None
    headers = answer.get("Access-Control-Allow-Headers").lower()
    fine = 200 <= answer.status < 300 and answer.get("Access-Control-Allow-Origin")
    if fine and ("last-event-id" in headers or headers == "*"):
        return None
    return Finding(
        "preflight",
        32,
        f"OPTIONS answers {answer.status or 'nothing'} and allows the headers: {headers or 'none'}",
        "clients based on fetch send OPTIONS first for Last-Event-ID, and some retry it forever",
        "answer OPTIONS with 204 and Access-Control-Allow-Headers: Last-Event-ID, Cache-Control, "
        "Authorization, Content-Type",
    )
