"""What a streaming script calls: each call sends through the run that is current."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ssekit.script.answer import answer_of
from ssekit.script.run import current
from ssekit.stream.response import last_event_id
from ssekit.wire import Event, encode_text

if TYPE_CHECKING:
    from werkzeug import Request


def send(
    data: Any, event: str | None = None, id: str | None = None, retry: int | None = None
) -> None:
    """Send one event; it has left the process on return.

    The fields are those of `ssekit.Event`; an `Event` as ``data`` is sent as it is.  Raises
    `InvalidEvent` before anything is sent if the format cannot carry it.
    """
    if type(data) is str and event is None and id is None and retry is None:
        _put(encode_text(data))
    else:
        _send(data if isinstance(data, Event) else Event(data, event, id, retry))


def comment(text: str) -> None:
    """Send a comment, which clients ignore.  Raises as `send` does."""
    _send(Event(comment=text))


def return_event_data(
    data: Any, event: str | None = "message", id: int | str = 0, retry: int = 0
) -> None:
    """Send one event as the PHP loop's ``returnEventData`` does.

    An ``id`` or ``retry`` of 0 and an empty ``event`` are not sent; None is sent as ``null``.
    Raises as `send` does.
    """
    _send(
        Event(
            "null" if data is None else data,
            event or None,
            (str(id) if id > 0 else None) if isinstance(id, int) else id or None,
            retry if not isinstance(retry, int) or retry > 0 else None,
        )
    )


def start(headers: Iterable[tuple[str, str]] | Mapping[str, str] = ()) -> None:
    """Send the headers now, with further ones; the first event would do it otherwise.

    They are those of `ssekit.Stream`.  Raises ValueError for one that is not a script's to set.
    """
    current().begin(headers)


def respond(
    body: str | bytes,
    status: int = 200,
    headers: Iterable[tuple[str, str]] | Mapping[str, str] = (),
) -> None:
    """Send an answer that is no stream, whole; it has left the process on return.

    A ``str`` is sent as UTF-8, by default as ``text/plain``; the length is set.  For HEAD only the
    headers are sent.  Raises `SSEError` after `respond` or anything of a stream, and TypeError or
    ValueError for what is no answer, before anything is sent.
    """
    run = current()
    run.respond(answer_of(body, status, headers, run.offer.cors(run.environ)))


def _send(event: Event) -> None:
    _put(event.encode())


def _put(block: bytes) -> None:
    if block:
        run = current()
        run.begin()
        run.put(block)


def environ_of_run() -> dict[str, Any]:
    """Return the WSGI environ of the run that asks."""
    return current().environ


def last_event_id_of_run() -> str | None:
    """Return the id after which the client of the calling run wants to resume."""
    return last_event_id(current().environ)


def request_of_run() -> Request:
    """Return the request of the run that asks; this needs werkzeug."""
    from ssekit.stream.source import request_of

    request: Request = request_of(current().environ)
    return request
