"""Checks of the stream's bytes: the format, the ids, and what a reconnect brings."""

from __future__ import annotations

import re
from itertools import groupby, islice

from ssekit.cli.doctor.exchange import EVENT_LIMIT, Exchange
from ssekit.cli.doctor.finding import Finding
from ssekit.cli.doctor.seen import Seen

_LINE_END = re.compile(rb"\r\n|\n|\r")
_FIELDS = {b"data", b"event", b"id", b"retry", b""}
LONG_LINE = 512 * 1024
"""Bytes of a line that make some clients fail."""


def _lines(seen: Seen) -> list[bytes]:
    """The complete lines of the stream."""
    body = seen.telling.body.removeprefix(b"\xef\xbb\xbf")
    return _LINE_END.split(body)[:-1]


def breaks_the_format(seen: Seen) -> Finding | None:
    if not seen.telling.is_stream or not seen.telling.body:
        return None
    for wrong in (_first_wrong(line) for line in _lines(seen)):
        if wrong:
            break
    else:
        tail = _LINE_END.split(seen.telling.body)[-1]
        if len(tail) > EVENT_LIMIT:
            wrong = f"a line of more than {EVENT_LIMIT} bytes"
        elif _names_nothing(seen):
            wrong = "an event with a name but no data, which browsers do not dispatch"
        else:
            return None
    return Finding(
        "format",
        74,
        wrong,
        "browsers silently drop what they cannot read: fields, events, or ids to resume from",
        "let ssekit.Event(...).encode() write the bytes; it refuses what the format cannot carry",
    )


def _first_wrong(line: bytes) -> str:
    """What is wrong with a line; "" if nothing is."""
    field, _, value = line.partition(b":")
    value = value.removeprefix(b" ")
    for wrong, what, shown in (
        (
            len(line) > LONG_LINE,
            f"a line of more than {LONG_LINE} bytes, at which some clients fail",
            line,
        ),
        (not _is_utf8(line), "a line that is not UTF-8", line),
        (field not in _FIELDS, "a line that is not a field of the format", line),
        (field == b"id" and b"\0" in value, "an id with a NUL, which browsers ignore", value),
        (
            field == b"id" and not value.isascii(),
            "an id that is not ASCII, which several clients cannot send back",
            value,
        ),
        (
            field == b"retry" and not value.isdigit(),
            "a retry that has anything but digits, which browsers ignore",
            value,
        ),
    ):
        if wrong:
            return f"{what}: {shown[:60]!r}"
    return ""


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _names_nothing(seen: Seen) -> bool:
    block: set[bytes] = set()
    for line in _lines(seen):
        if line:
            block.add(line.partition(b":")[0])
        else:
            if b"event" in block and b"data" not in block:
                return True
            block.clear()
    return False


def no_retry(seen: Seen) -> Finding | None:
    if not seen.telling.is_stream or not seen.telling.arrivals:
        return None
    if any(line.startswith(b"retry:") for line in _lines(seen)):
        return None
    return Finding(
        "no-retry",
        22,
        "no retry: line",
        "each browser then chooses how long it waits before it reconnects, usually 3 or 5 s, and "
        "after a deploy all clients reconnect at the same time",
        "begin the stream with retry: and milliseconds that differ by client; ssekit.Stream does",
    )


def no_ids(seen: Seen) -> Finding | None:
    answer = seen.telling
    if not answer.events or any(answer.ids):
        return None
    return Finding(
        "no-ids",
        26,
        "one event and no id"
        if len(answer.events) == 1
        else f"{len(answer.events)} events and no id",
        "a client that loses its connection cannot say where it was, and misses events",
        "give events ids and resume after Last-Event-ID; ssekit.Hub does both",
    )


def same_ids(seen: Seen) -> Finding | None:
    ids = seen.telling.ids
    if len(ids) < 3 or not ids[0] or len(set(ids)) > 1:
        return None
    return Finding(
        "same-ids",
        58,
        f"all of {len(ids)} events have the id {ids[0][:40]!r}",
        "Last-Event-ID then says nothing, and a client that reconnects misses events",
        "give every event an id of its own; ssekit.Hub does",
    )


def resuming(seen: Seen) -> Finding | None:
    """A reconnect with an id has to bring the events after it, once and in order."""
    measured = seen.probe
    if measured is not None and measured.resumed_at not in (None, measured.resumed_right):
        return _resuming(
            f"ssekit's probe, asked to resume, began with {measured.resumed_at!r:.60} "
            f"instead of {measured.resumed_right!r}: Last-Event-ID does not arrive"
        )
    if seen.resumed is None or not seen.resumed.is_stream:
        return None
    wrong = _differs(seen.resumed, seen.resumed_after, list(seen.expected))
    return _resuming(f"after Last-Event-ID: {seen.resumed_after[:60]} {wrong}") if wrong else None


def _differs(resumed: Exchange, after: str, expected: list[str]) -> str:
    """How the ids differ from the expected ones; "" if they do not."""
    got = list(islice((key for key, _ in groupby(resumed.ids)), len(expected)))
    missing = [one for one in expected[: len(got)] if one not in got]
    if after in got:
        return "the event with this id was repeated"
    if not got:
        return f"nothing arrived in {resumed.left_at:.1f} s, although there had been more events"
    if len(set(got)) < len(got):
        return f"an event was repeated: {', '.join(got)[:120]}"
    if missing:
        return f"{got[0][:60]!r} arrived first, and {missing[0][:60]!r} was lost"
    return ""


def _resuming(what: str) -> Finding:
    return Finding(
        "resuming",
        76,
        what,
        "browsers reconnect by themselves after every interruption; nobody notices what they then "
        "miss or get twice",
        "keep a log and read it after Last-Event-ID; ssekit.Hub does. Every hop must pass the "
        "header on",
    )
