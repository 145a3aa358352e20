"""The answer of a script that is no stream: a body with its status and headers, as a value."""

from __future__ import annotations

from collections.abc import Mapping

from ssekit.stream.response import NOT_OURS, Answer, Headers, Pairs, joined

_WITHOUT_BODY = (204, 304)
_PLAIN: Headers = [("Content-Type", "text/plain; charset=utf-8")]
_BYTES: Headers = [("Content-Type", "application/octet-stream")]


def answer_of(
    body: str | bytes, status: int, headers: Pairs | Mapping[str, str], cors: Headers
) -> Answer:
    """Return the answer with ``body``; ``cors`` are the headers for pages of other origins.

    Raises TypeError for a body that is neither text nor bytes, and ValueError for a status that is
    not final, a body where the status has none (RFC 9110, sections 15.3.5 and 15.4.5), or a header
    that is not a script's to set.
    """
    if not isinstance(body, str | bytes):
        raise TypeError(
            f"respond() takes str or bytes, not {type(body).__name__}: json.dumps() makes a str"
        )
    if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 599:
        raise ValueError(f"status must be a number from 200 to 599, not {status!r}")
    if status in _WITHOUT_BODY:
        if body:
            raise ValueError(f"an answer with the status {status} has no body")
        return Answer(_line(status), joined(cors, headers, NOT_OURS))
    content = body.encode() if isinstance(body, str) else body
    kind = _PLAIN if isinstance(body, str) else _BYTES
    length = ("Content-Length", str(len(content)))
    return Answer(_line(status), [*joined([*kind, *cors], headers, NOT_OURS), length], content)


def _line(status: int) -> str:
    if status == 200:
        return "200 OK"  # A CGI process starts faster without the table.
    from http.client import responses

    return f"{status} {responses.get(status, 'Unknown')}"
