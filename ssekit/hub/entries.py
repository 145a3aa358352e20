"""The hub's own events, and the entries of a log as what viewers get: frames of bytes, or events.

An event is encoded once, when it is published.  From then on it is the `body` of an entry, and
whatever sends it joins bytes; it is decoded only for those who iterate over events in Python.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from ssekit.brokers.contract import Entry
from ssekit.errors import InvalidEvent
from ssekit.wire import Event, encode_text

OWN = "stream-"
"""What the names of the hub's own events begin with; nobody else can publish such a name."""
OPEN, RESET, REMOVE, END = "stream-open", "stream-reset", "stream-remove", "stream-end"
JOIN, LEAVE = "stream-join", "stream-leave"
FAILED, LOST = "failed", "lost"
"""Why a channel has ended that its producer has not finished."""

_OWN = b"event: " + OWN.encode()
_REMOVE = b"event: %b\n" % REMOVE.encode()
_END = b"event: %b\n" % END.encode()
_JOIN, _LEAVE = b"event: %b\n" % JOIN.encode(), b"event: %b\n" % LEAVE.encode()


class ChannelEvent(Event):
    """An event with the channel that it was published in, and its key if it has one.

    These are no part of equality: it equals the plain `Event` with the same fields.  The events
    ``stream-open`` and ``stream-reset`` belong to no channel.
    """

    __slots__ = ("channel", "key")
    channel: str | None
    key: str | None

    def __init__(
        self,
        data: Any = None,
        event: str | None = None,
        id: str | None = None,
        retry: int | None = None,
        comment: str | None = None,
        *,
        channel: str | None = None,
        key: str | None = None,
    ) -> None:
        Event.__init__(self, data, event, id, retry, comment)
        _set_channel(self, channel)
        _set_key(self, key)

    def _fields(self) -> tuple[Any, ...]:
        return (self.data, self.event, self.id, self.retry, self.comment)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Event):
            return NotImplemented
        return self._fields() == (other.data, other.event, other.id, other.retry, other.comment)

    def __hash__(self) -> int:
        return hash(self._fields())

    def __reduce__(self) -> tuple[Any, ...]:
        return _channel_event, (*self._fields(), self.channel, self.key)


_set_channel, _set_key = (ChannelEvent.__dict__[name].__set__ for name in ("channel", "key"))


def _channel_event(*fields: Any) -> ChannelEvent:
    return ChannelEvent(*fields[:5], channel=fields[5], key=fields[6])


def body_of_data(data: Any, event: str | None, retry: int | None, most: int | None) -> bytes:
    """Return what is published as the body of an entry; raises as `body_of` does."""
    if event is None and retry is None and type(data) is str:
        return _bounded(encode_text(data)[:-1], most)
    return body_of(Event(data, event, None, retry), most)


def body_of(event: Event, most: int | None = None) -> bytes:
    """Return an event without an id as the body of an entry.

    Raises `InvalidEvent` for what the format cannot carry, or if it has more than ``most`` bytes.
    """
    return _bounded(event.encode()[:-1], most)  # the blank line comes after the id


def _bounded(body: bytes, most: int | None) -> bytes:
    if most is not None and len(body) > most:
        raise InvalidEvent(
            f"the event has {len(body)} bytes, and max_event is {most}: publish where the data is"
            " instead, as each client that comes back would get it again"
        )
    return body


_OPEN_BODY = body_of(Event({}, OPEN))
_RESET_BODY = body_of(Event({"reason": "history-lost"}, RESET))


def end_body(channel: str, reason: str, data: object = None, most: int | None = None) -> bytes:
    """Return the end of a channel as the body of an entry; raises as `body_of` does."""
    return body_of(Event({"channel": channel, "reason": reason, "data": data}, END), most)


def removal_body(channel: str, key: str) -> bytes:
    """Return the removal of a key as the body of an entry."""
    return body_of(Event({"channel": channel, "key": key}, REMOVE))


def join_body(channel: str, member: str, value: object) -> bytes:
    """Return the joining of a member as the body of an entry; raises as `body_of` does."""
    return body_of(Event({"channel": channel, "member": member, "value": value}, JOIN))


def leave_body(joined: bytes) -> bytes:
    """Return the leave of the member that has joined with an entry of this body."""
    return joined.replace(_JOIN, _LEAVE, 1)


def open_entry(cursor: str) -> Entry:
    """Return the ``stream-open`` of a client that goes on after a cursor; it is in no log."""
    return Entry(cursor, "", _OPEN_BODY)


def reset_entry(cursor: str) -> Entry:
    """Return the ``stream-reset`` of a client that has lost history; it is in no log."""
    return Entry(cursor, "", _RESET_BODY, passing=True)


def without_id(entry: Entry) -> Entry:
    """Return the entry as an opening has it."""
    return entry._replace(passing=True)


def is_own(entry: Entry) -> bool:
    """Whether the event is the hub's, such as the end of a channel."""
    return entry.body.startswith(_OWN)


def is_removal(entry: Entry) -> bool:
    """Whether the entry removes a key."""
    return entry.body.startswith(_REMOVE)


def is_end(entry: Entry) -> bool:
    """Whether the entry is the end of its channel."""
    return entry.body.startswith(_END)


def is_broken_off(end: Entry) -> bool:
    """Whether a channel ended before its producer had sent everything."""
    return json.loads(str(event_of(end).data)).get("reason") in (FAILED, LOST)


def frame(entry: Entry) -> bytes:
    """Return the entry as a viewer gets it."""
    return entry.frame


def frame_with_ids(entry: Entry) -> bytes:
    """Return the entry for a viewer that gets the ids of the hub's own events alone."""
    if not is_own(entry):
        return entry.frame
    return b"" if entry.passing else b"id: %b\n\n" % entry.id.encode()


def frame_of_others(entry: Entry) -> bytes:
    """Return the entry for a viewer that gets nothing of the hub's own events."""
    return b"" if is_own(entry) else entry.frame


def framing(hub_events: bool, own_ids: bool) -> Callable[[Entry], bytes]:
    """Return the function that frames entries for viewers with hub events, their ids, or neither.

    The last is for OpenAI's client in Python, which takes a block that has an id alone for an event
    without data, and fails.
    """
    if hub_events:
        return frame
    return frame_with_ids if own_ids else frame_of_others


def event_of(entry: Entry) -> ChannelEvent:
    """Return the entry as an event: its data as text, its name None where it has none."""
    cursor = None if entry.passing else entry.id
    body = entry.body
    if body.startswith(b"data: ") and body.find(b"\n") == len(body) - 1:  # as most are
        text = body[6:-1].decode()
        return ChannelEvent(text, None, cursor, channel=entry.channel or None, key=entry.key)
    return _event_of_lines(entry, cursor)


def _event_of_lines(entry: Entry, cursor: str | None) -> ChannelEvent:
    name: str | None = None
    retry: int | None = None
    data: list[str] = []
    for line in entry.body.decode().split("\n")[:-1]:
        field, _, value = line.partition(": ")
        if field == "data":
            data.append(value)
        elif field == "event":
            name = value
        elif field == "retry":
            retry = int(value)
    text = "\n".join(data) if data else None
    return ChannelEvent(text, name, cursor, retry, channel=entry.channel or None, key=entry.key)


def events_of(entries: Iterable[Entry]) -> list[Event]:
    """Return entries as events."""
    return [event_of(entry) for entry in entries]
