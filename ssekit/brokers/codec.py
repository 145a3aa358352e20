"""Ids and stored events: how a log writes them, and how they are read back.

Every broker shares this, so that the same event has the same bytes whatever keeps it.  It knows
ids, events and text; it knows no log.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ssekit.brokers.contract import Entry, HistoryLost
from ssekit.wire import Decoder, Event

# Sixteen digits stay within what a double holds exactly, which is what Lua and a Redis score are.
_ID = re.compile("(0|[1-9][0-9]{0,15})-(0|[1-9][0-9]{0,15})", re.ASCII)


def id_of(epoch: int, seq: int) -> str:
    return f"{epoch}-{seq}"


def parse_id(cursor: str) -> tuple[int, int]:
    """Return the epoch and seq of a cursor; raises `HistoryLost` if it never was one."""
    match = _ID.fullmatch(cursor)
    if match is None:
        raise HistoryLost(f"{cursor!r:.80} is not an id of a log")
    return int(match[1]), int(match[2])


def seq_in(cursor: str, epoch: int, tip: int, past: Mapping[int, int] = {}) -> int:
    """Return the seq of a cursor in the log of this epoch whose last seq is ``tip``.

    ``past`` has the log's earlier epochs, each with its last seq.  Raises `HistoryLost` if the
    cursor never was in the log, or no longer is.
    """
    theirs, seq = parse_id(cursor)
    last = tip if theirs == epoch else past.get(theirs)
    if last is None:
        raise HistoryLost(f"{cursor} belongs to another log than {epoch}")
    if seq > last:
        raise HistoryLost(f"{cursor} is not in the log, which then ended at {last}")
    return seq


def as_stored(event: Event) -> Event:
    """Return the event in the form that a log keeps: its data as the text that a client gets.

    Two processes then hold equal events, and nobody can change published data afterwards.
    Raises `InvalidEvent`.
    """
    event = _with(event, event.data, None)
    event.encode()
    data = event.data
    if data is None or (type(data) is str and "\r" not in data):
        return event
    (seen,) = Decoder().feed(Event(data).encode())
    return _with(event, seen.data, None)


def _with(event: Event, data: Any, event_id: str | None) -> Event:
    return Event(data, event.event, event_id, event.retry, event.comment)


def entry_of(channel: str, event: Event, entry_id: str) -> Entry:
    event = _with(event, event.data, entry_id)
    return Entry(entry_id, channel, event, event.encode())


def pack(event: Event) -> str:
    """Return a stored event without its id as one text."""
    fields = [event.data, event.event, event.retry, event.comment]
    while fields and fields[-1] is None:
        fields.pop()
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def unpack(channel: str, entry_id: str, packed: str) -> Entry:
    data, event, retry, comment = [*json.loads(packed), None, None, None, None][:4]
    return entry_of(channel, Event(data, event, None, retry, comment), entry_id)
