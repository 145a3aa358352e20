"""The event stream format: events to bytes, and bytes to events.

This module is pure.  It knows no socket, no clock and no setting; it can be read beside the HTML
standard, section 9.2 "Server-sent events" (https://html.spec.whatwg.org/#server-sent-events),
whose subsections 9.2.5 (parsing) and 9.2.6 (interpreting) are quoted where a line follows them.
Encoding refuses what the format cannot carry; decoding accepts every stream, as a browser does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from ssekit.errors import InvalidEvent

HEARTBEAT = b":\n"
"""A comment line without a blank line: several clients make an empty message of a whole block."""

_BOM = b"\xef\xbb\xbf"


class Event:
    """One event, or the fields of one: a value, compared by value.

    ``data``: a ``str`` is sent as text and ``bytes`` as UTF-8 text; ``None`` sends no data field;
    anything else is sent as compact JSON.
    ``event``: the type that a page listens for; without one a browser says "message".
    ``id``: what a client sends back as ``Last-Event-ID``; an empty one resets it.
    ``retry``: how long a client waits before it connects again, in whole milliseconds.
    ``comment``: text that clients ignore.  `encode` raises `InvalidEvent`.
    """

    # Not a dataclass: a CGI process would start a third slower, as `dataclasses` imports `inspect`.
    __slots__ = ("comment", "data", "event", "id", "retry")
    __match_args__ = ("data", "event", "id", "retry", "comment")

    data: Any
    event: str | None
    id: str | None
    retry: int | None
    comment: str | None

    def __init__(
        self,
        data: Any = None,
        event: str | None = None,
        id: str | None = None,
        retry: int | None = None,
        comment: str | None = None,
    ) -> None:
        _set_data(self, data)
        _set_event(self, event)
        _set_id(self, id)
        _set_retry(self, retry)
        _set_comment(self, comment)

    def __setattr__(self, name: str, value: object) -> None:
        from dataclasses import FrozenInstanceError  # which is an AttributeError

        raise FrozenInstanceError(f"an Event cannot be changed: make another one, with its {name}")

    def __delattr__(self, name: str) -> None:
        self.__setattr__(name, None)

    def _fields(self) -> tuple[Any, ...]:
        return self.data, self.event, self.id, self.retry, self.comment

    def __eq__(self, other: object) -> bool:
        return self._fields() == other._fields() if isinstance(other, Event) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._fields())

    def __repr__(self) -> str:
        pairs = zip(self.__match_args__, self._fields(), strict=True)
        return f"Event({', '.join(f'{name}={value!r}' for name, value in pairs)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Event, self._fields()

    def encode(self) -> bytes:
        """Return the event as bytes of an event stream.

        The id comes last: some clients take an id as soon as its line arrives, and a connection
        that is cut after it would lose the event.  A blank line, which makes a client dispatch,
        ends whatever has data, a name or an id; a lone comment or retry has none.

        Raises `InvalidEvent` for what the format cannot carry: CR, LF or NUL in ``event`` or
        ``id``, a ``retry`` that is not a whole number from 0 up, text or bytes that are not
        UTF-8, or data that JSON cannot hold.
        """
        lines: list[str] = []
        if self.comment is not None:
            comment = _text("comment", self.comment)
            lines += [f": {line}" if line else ":" for line in _lines(comment)]
        if self.event is not None:
            lines.append(f"event: {_field('event', self.event)}")
        if self.retry is not None:
            lines.append(f"retry: {_milliseconds(self.retry)}")
        if self.data is not None:
            lines += [f"data: {line}" for line in _lines(_data(self.data))]
        if self.id is not None:
            lines.append(f"id: {_field('id', self.id)}")
        if not lines:
            return b""
        ends = self.data is not None or self.event is not None or self.id is not None
        try:
            return "\n".join([*lines, "", ""] if ends else [*lines, ""]).encode()
        except UnicodeEncodeError as error:
            raise InvalidEvent(f"the event is not UTF-8 text: {error}") from error

    @classmethod
    def parse(cls, block: str | bytes) -> Event:
        """Return the event of one finished block, such as the helpers of other libraries make.

        Its text is kept as it is: ``data`` is a ``str`` with LF between its lines, and a name that
        the block does not give is None, not "message".

        Raises `InvalidEvent` for anything but one block and the blank line that ends it, which is
        how a line break in somebody's id shows, and for what an event cannot have: a field that
        the format does not know (clients ignore it), or a retry that is not a whole number.
        """
        text = _data(block) if isinstance(block, bytes) else _text("a block", block)
        lines = _lines(text)
        if len(lines) < 3 or lines.index("") != len(lines) - 2 or lines[-1]:
            raise InvalidEvent(f"expected one block and its blank line, not {text!r:.80}")
        found: dict[str, list[str]] = {}
        for line in lines[:-2]:
            # 9.2.6: "Collect the characters on the line before the first U+003A COLON character".
            name, _, value = line.partition(":")
            found.setdefault(name, []).append(value.removeprefix(" "))
        comment, data = (_joined(found.pop(name, None)) for name in ("", "data"))
        # 9.2.6: the last of several lines counts for the other fields.
        event, event_id, retry = (found.pop(name, [None])[-1] for name in ("event", "id", "retry"))
        if found:
            raise InvalidEvent(f"an event stream has no field {min(found)!r:.80}")
        parsed = cls(data, event, event_id, None if retry is None else _digits(retry), comment)
        parsed.encode()
        return parsed


# Faster than object.__setattr__: an event is made for each delivery of a loop of its own.
_set_data, _set_event, _set_id, _set_retry, _set_comment = (
    Event.__dict__[name].__set__ for name in Event.__match_args__
)


def encode_text(text: str) -> bytes:
    """Return ``Event(text).encode()``; of a line of ASCII, which most are, in a fifth of the time.

    Raises as that does.
    """
    if "\n" not in text and "\r" not in text and text.isascii():
        return b"data: %b\n\n" % text.encode()
    return Event(text).encode()


def _lines(text: str) -> list[str]:
    # 9.2.5: "Lines must be separated by either a U+000D CARRIAGE RETURN U+000A LINE FEED (CRLF)
    # character pair, a single U+000A LINE FEED (LF) character, or a single U+000D CARRIAGE RETURN
    # (CR) character."  str.splitlines() knows more line ends (U+2028, U+0085, VT, FF).
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.split("\n")


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidEvent(f"{name} must be a str, not {type(value).__name__}: {value!r:.80}")
    return str.__str__(value)  # its text, however a subclass, such as an enum's, would format it


def _field(name: str, value: object) -> str:
    text = _text(name, value)
    if "\n" in text or "\r" in text or "\0" in text:
        raise InvalidEvent(f"{name} must not contain CR, LF or NUL: {text!r:.80}")
    return text


def _joined(lines: list[str] | None) -> str | None:
    return None if lines is None else "\n".join(lines)


def _digits(value: str) -> int:
    # 9.2.6: "consists of only ASCII digits": int() and str.isdigit() alone take more.
    if not (value.isascii() and value.isdigit()):
        raise InvalidEvent(f"retry must be whole milliseconds from 0 up, not {value!r:.80}")
    try:
        return int(value)
    except ValueError as error:
        raise InvalidEvent(f"retry has too many digits: {error}") from error


def _milliseconds(value: object) -> str:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidEvent(f"retry must be whole milliseconds from 0 up, not {value!r:.80}")
    try:
        digits = int.__repr__(value)  # not a subclass's, which may write anything
    except ValueError as error:
        raise InvalidEvent(f"retry has too many digits: {error}") from error
    if value < 0:
        raise InvalidEvent(f"retry must be whole milliseconds from 0 up, not {digits:.80}")
    return digits


def _data(value: object) -> str:
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes | bytearray | memoryview):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError as error:
            raise InvalidEvent(f"data is not UTF-8 text: {error}") from error
    try:
        return _json()(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidEvent(f"data cannot be sent as JSON: {error}") from error


@cache
def _json() -> Callable[[object], str]:
    # Made once: json.dumps() makes an encoder for each call that is not plain.  And made late: a
    # CGI process that sends text starts faster.
    import json

    return json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class Decoder:
    """Reads an event stream as a browser does, whatever the borders of the chunks.

    Its events are the normal form of an event: ``data`` is text with LF between lines, ``event``
    is "message" where none was named, and ``id`` is the last id seen so far, "" before the first.

    ``limit`` bounds the bytes of one unfinished event; `feed` raises `InvalidEvent` beyond it.
    The default of ``None`` is for streams that one trusts.  ``last_event_id`` is the id that an
    earlier connection to the same source left behind: browsers keep it until another id comes.
    """

    def __init__(self, *, limit: int | None = None, last_event_id: str = "") -> None:
        self.last_event_id: str = last_event_id
        """What a client sends as ``Last-Event-ID`` when it connects again."""
        self.retry: int | None = None
        """The last reconnection time that the stream asked for, in milliseconds."""
        self._limit = limit
        self._tail: list[bytes] = []  # pieces of the unfinished line
        self._tail_size = 0
        self._data: list[str] = []  # data lines of the unfinished event
        self._data_size = 0
        self._event = ""
        self._id = last_event_id
        self._after_cr = False  # an LF that comes next belongs to a CR already taken
        self._at_start = True

    def feed(self, chunk: bytes) -> list[Event]:
        """Take the next bytes of the stream and return the events that they complete.

        Raises nothing: what is not an event is ignored, as in a browser.
        """
        if self._after_cr and chunk:
            self._after_cr = False
            if chunk[:1] == b"\n":
                chunk = chunk[1:]
        if not chunk:
            return []
        self._after_cr = chunk[-1:] == b"\r"
        if b"\r" in chunk:
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, tail = chunk.split(b"\n")
        events: list[Event] = []
        if lines:
            lines[0] = b"".join([*self._tail, lines[0]])
            self._tail.clear()
            self._tail_size = 0
            for line in lines:
                self._take(line, events)
        if tail:
            self._tail.append(tail)
            self._tail_size += len(tail)
            self._check_limit()
        return events

    def _check_limit(self) -> None:
        if self._limit is not None and self._tail_size + self._data_size > self._limit:
            raise InvalidEvent(f"an event of the stream is longer than {self._limit} bytes")

    def _take(self, line: bytes, events: list[Event]) -> None:
        if self._at_start:
            # 9.2.5: "a single leading U+FEFF BYTE ORDER MARK character" is stripped.
            self._at_start = False
            line = line.removeprefix(_BOM)
        if not line:
            self._dispatch(events)
            return
        field, _, value = line.decode("utf-8", "replace").partition(":")
        # 9.2.6: "If value starts with a U+0020 SPACE character, remove it from value."
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
            self._data_size += len(line)
            self._check_limit()
        elif field == "event":
            self._event = value
        elif field == "id":
            # 9.2.6: "If the field value does not contain U+0000 NULL"; else the field is ignored.
            if "\0" not in value:
                self._id = value
        elif field == "retry" and value.isascii() and value.isdigit():
            # 9.2.6: "consists of only ASCII digits": int() and str.isdigit() alone take more.
            # Longer than any clock runs means never, and int() refuses 4,301 digits.
            digits = value.lstrip("0")
            self.retry = int(digits or "0") if len(digits) <= 18 else 10**18

    def _dispatch(self, events: list[Event]) -> None:
        # 9.2.6: the id counts even if the block has no data and dispatches nothing.
        self.last_event_id = self._id
        if self._data:
            events.append(Event("\n".join(self._data), self._event or "message", self._id))
        self._data.clear()
        self._event = ""
        self._data_size = 0
