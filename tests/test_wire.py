"""The wire format: the standard's examples, what is refused, and every cut."""

from __future__ import annotations

from enum import Enum, IntEnum
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssekit import Decoder, Event, InvalidEvent
from ssekit.wire import encode_text

STANDARD = [
    # HTML standard, 9.2.6, in the order of the text.
    (
        b"data: YHOO\ndata: +2\ndata: 10\n\n",
        [Event("YHOO\n+2\n10", "message", "")],
    ),
    (
        b": test stream\n\ndata: first event\nid: 1\n\n"
        b"data:second event\nid\n\ndata:  third event\n",
        [Event("first event", "message", "1"), Event("second event", "message", "")],
    ),
    (b"data\n\ndata\ndata\n\ndata:", [Event("", "message", ""), Event("\n", "message", "")]),
    (b"data:test\n\ndata: test\n\n", [Event("test", "message", "")] * 2),
    # HTML standard, 9.2.1.
    (
        b"event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\n",
        [Event("73857293", "add", ""), Event("2153", "remove", "")],
    ),
    # The full message format of the PHP blog's last section.
    (
        b"id: msg1\nevent: foo\nretry: 10000\ndata: some text\ndata: another message\n"
        b"data: with two lines \n\n",
        [Event("some text\nanother message\nwith two lines ", "foo", "msg1")],
    ),
    (
        b"\xef\xbb\xbfdata: after a byte order mark\n\n",
        [Event("after a byte order mark", "message", "")],
    ),
    (b"\xef\xbb\xbf\xef\xbb\xbfdata: two\n\ndata: x\n\n", [Event("x", "message", "")]),
    (b"data: a\r\ndata: b\rdata: c\n\r\n", [Event("a\nb\nc", "message", "")]),
    (b"data: a\r\rdata: b\r\n\r\n", [Event("a", "message", ""), Event("b", "message", "")]),
    ("data: a\u2028b\x85c\x0bd\n\n".encode(), [Event("a\u2028b\x85c\x0bd", "message", "")]),
    (b"id: 1\n\ndata: x\n\n", [Event("x", "message", "1")]),
    (b"id: 1\nid: 2\0\ndata: x\n\n", [Event("x", "message", "1")]),
    (b"data: \xff\n\n", [Event("\ufffd", "message", "")]),
    (b"event: only a name\n\ndata: x\n\n", [Event("x", "message", "")]),
    (b"Data: no\n data: no\nnonsense\n:data: no\ndata: x\n\n", [Event("x", "message", "")]),
]


def decode(stream: bytes, *cuts: int) -> list[Event]:
    decoder = Decoder()
    borders = [0, *cuts, len(stream)]
    return [event for start, end in pairwise(borders) for event in decoder.feed(stream[start:end])]


@pytest.mark.parametrize(("stream", "events"), STANDARD)
def test_a_stream_is_read_as_the_standard_says(stream: bytes, events: list[Event]) -> None:
    assert decode(stream) == events


@pytest.mark.parametrize(("stream", "events"), STANDARD)
def test_a_stream_reads_the_same_cut_at_every_byte(stream: bytes, events: list[Event]) -> None:
    for cut in range(len(stream) + 1):
        assert decode(stream, cut) == events
    assert decode(stream, *range(1, len(stream))) == events


@pytest.mark.parametrize(
    ("value", "retry"),
    [
        ("100", 100),
        ("007", 7),
        ("0", 0),
        ("", None),
        ("+5", None),
        ("-5", None),
        ("1_000", None),
        ("1.5", None),
        ("\u0663", None),
        ("\u00b2", None),
        ("9" * 5000, 10**18),
    ],
)
def test_retry_is_ascii_digits_only(value: str, retry: int | None) -> None:
    decoder = Decoder()
    decoder.feed(f"retry: {value}\n".encode())
    assert decoder.retry == retry


def test_the_last_event_id_is_taken_at_the_blank_line() -> None:
    decoder = Decoder()
    decoder.feed(b"id: 7\n")
    assert decoder.last_event_id == ""
    decoder.feed(b"\n")
    assert decoder.last_event_id == "7"


def test_an_event_beyond_the_limit_is_refused() -> None:
    for stream in (b"data: " + b"x" * 100, b"data: xxxxxxx\n" * 10):
        with pytest.raises(InvalidEvent, match="longer than 64 bytes"):
            Decoder(limit=64).feed(stream)
    heartbeats = Decoder(limit=64)
    for _ in range(1000):
        assert heartbeats.feed(b":\n") == []


@pytest.mark.parametrize(
    ("event", "wire"),
    [
        (Event(), b""),
        (Event("hello"), b"data: hello\n\n"),
        (Event(""), b"data: \n\n"),
        (Event(b"\xc3\xa9"), b"data: \xc3\xa9\n\n"),
        (
            Event({"id": 1, "message": "\u6b22\u8fce"}),
            'data: {"id":1,"message":"\u6b22\u8fce"}\n\n'.encode(),
        ),
        (Event([1, None, True]), b"data: [1,null,true]\n\n"),
        (Event(0), b"data: 0\n\n"),
        (Event(False), b"data: false\n\n"),
        (Event("a\nb\r\nc\rd\u2028e"), "data: a\ndata: b\ndata: c\ndata: d\u2028e\n\n".encode()),
        (Event("hello", "message", "1"), b"event: message\ndata: hello\nid: 1\n\n"),
        (Event("d", "e", "i", 5, "c"), b": c\nevent: e\nretry: 5\ndata: d\nid: i\n\n"),
        (Event(event="ping"), b"event: ping\n\n"),
        (Event(id="9"), b"id: 9\n\n"),
        (Event(id=""), b"id: \n\n"),
        (Event(retry=0), b"retry: 0\n"),
        (Event(comment=""), b":\n"),
        (Event(comment="a\nb"), b": a\n: b\n"),
    ],
)
def test_an_event_is_encoded_so(event: Event, wire: bytes) -> None:
    assert event.encode() == wire


@pytest.mark.parametrize("text", ["hello", "", "a b", "\0", "\u2028", "\u6b22", "a\nb", "a\rb\r\n"])
def test_a_text_alone_is_encoded_as_in_an_event(text: str) -> None:
    assert encode_text(text) == Event(text).encode()


class Kind(str, Enum):
    """An enum, which a format string would show by its name."""

    NEWS = "news"


class Wait(IntEnum):
    SHORT = 500


class Sly(int):
    def __repr__(self) -> str:
        return "5\nid: injected"

    __str__ = __repr__


class Slyer(str):
    def __format__(self, _: str) -> str:
        return "x\nid: injected"

    def __str__(self) -> str:
        return "x\nid: injected"


@pytest.mark.parametrize(
    ("event", "wire"),
    [
        (Event(Kind.NEWS, Kind.NEWS, Kind.NEWS), b"event: news\ndata: news\nid: news\n\n"),
        (Event(comment=Kind.NEWS), b": news\n"),
        (Event(retry=Wait.SHORT), b"retry: 500\n"),
        (Event(retry=Sly(500)), b"retry: 500\n"),
        (Event(Slyer("a"), Slyer("b"), Slyer("c")), b"event: b\ndata: a\nid: c\n\n"),
        (Event({Kind.NEWS: Wait.SHORT}), b'data: {"news":500}\n\n'),
    ],
)
def test_a_subclass_is_sent_as_the_text_or_number_that_it_is(event: Event, wire: bytes) -> None:
    assert event.encode() == wire


NAN = float("nan")
CIRCLE: list[object] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    "event",
    [
        *(Event("x", **{field: f"a{bad}b"}) for field in ("id", "event") for bad in "\r\n\0"),
        Event("x", id=1),  # type: ignore[arg-type]
        Event("x", event=1),  # type: ignore[arg-type]
        Event("x", comment=1),  # type: ignore[arg-type]
        Event("x", retry=-1),
        Event("x", retry=1.5),  # type: ignore[arg-type]
        Event("x", retry="5"),  # type: ignore[arg-type]
        Event("x", retry=True),
        Event("x", retry=10**5000),
        Event("x", retry=-(10**5000)),
        Event("x", event="\ud800"),
        Event(comment="\ud800"),
        Event("x", id=Slyer("a\nb")),
        Event(b"\xff"),
        Event("\ud800"),
        Event("x", id="\ud800"),
        Event({"a": "\ud800"}),
        Event(NAN),
        Event({"a": [NAN]}),
        Event(object()),
        Event({1, 2}),
        Event({"a": b"bytes"}),
        Event({"a": {NAN: 1}}),
        Event(10**5000),
        Event(memoryview(b"\xff")),
        Event(CIRCLE),
    ],
)
def test_what_the_format_cannot_carry_is_refused(event: Event) -> None:
    with pytest.raises(InvalidEvent):
        event.encode()


def test_invalid_event_is_a_value_error() -> None:
    assert issubclass(InvalidEvent, ValueError)


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NAME = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
EVENTS = st.builds(
    Event,
    st.none() | TEXT | TEXT.map(str.encode) | JSON,
    st.none() | NAME,
    st.none() | NAME,
    st.none() | st.integers(0, 10**18),
    st.none() | TEXT,
)


def normal(events: list[Event]) -> list[Event]:
    """What a browser dispatches for these events, said without the wire format."""
    last_id = ""
    dispatched = []
    for event in events:
        last_id = event.id if event.id is not None else last_id
        if event.data is not None:
            (text,) = [seen.data for seen in decode(Event(event.data).encode())]
            if isinstance(event.data, str):
                assert text == event.data.replace("\r\n", "\n").replace("\r", "\n")
            dispatched.append(Event(text, event.event or "message", last_id))
    return dispatched


@given(st.lists(EVENTS, max_size=3))
def test_events_come_back_in_their_normal_form_cut_at_every_byte(events: list[Event]) -> None:
    stream = b"".join(event.encode() for event in events)
    expected = normal(events)
    assert decode(stream) == expected
    assert decode(stream, *range(1, len(stream))) == expected


@given(st.binary(), st.binary())
def test_no_bytes_break_the_decoder(one: bytes, two: bytes) -> None:
    assert decode(one + two) == decode(one + two, len(one))


ONE_BLOCK = [
    ("data: x\n\n", Event("x")),
    ("data:x\ndata\ndata:  y\n\n", Event("x\n\n y")),
    ("event: a\nevent: b\nid: 1\nid: 2\n\n", Event(event="b", id="2")),
    (": one\n:\n:two\ndata: x\n\n", Event("x", comment="one\n\ntwo")),
    ("retry: 007\r\nid\r\n\r\n", Event(id="", retry=7)),
    ("data: a\rdata: b\r\r", Event("a\nb")),
    ("data: a\u2028b\x85c\n\n", Event("a\u2028b\x85c")),
    ("data: \u4e09\n\n".encode(), Event("\u4e09")),
    (
        "event: datastar-patch-elements\ndata: elements <p id='a'>\ndata: elements </p>\n\n",
        Event("elements <p id='a'>\nelements </p>", "datastar-patch-elements"),
    ),
]


@pytest.mark.parametrize(("block", "event"), ONE_BLOCK)
def test_a_block_is_parsed_into_its_event(block: str | bytes, event: Event) -> None:
    assert Event.parse(block) == event


@pytest.mark.parametrize(
    "block",
    [
        *("", "\n", "\n\n", "\n\n\n"),
        *("data: x", "data: x\n", "\ndata: x\n\n", "data: x\n\n\n", "data: x\n\n "),
        *("data: x\n\ndata: y\n\n", "data: x\n\ndata: y\n", "data: x\r\rdata: y\r\r"),
        *("name: x\n\n", " data: x\n\n", "Data: x\n\n", "\ufeffdata: x\n\n"),
        *("retry: +5\n\n", "retry:\n\n", "retry: \u0663\n\n", f"retry: {'9' * 5000}\n\n"),
        *("id: \0\n\n", "event: \0\n\n", "data: \ud800\n\n", b"data: \xff\n\n"),
    ],
)
def test_more_or_less_than_one_valid_block_is_refused(block: str | bytes) -> None:
    with pytest.raises(InvalidEvent):
        Event.parse(block)


@pytest.mark.parametrize("block", [None, 5, Event("x")])
def test_a_block_is_text(block: object) -> None:
    with pytest.raises(InvalidEvent, match="a block must be a str"):
        Event.parse(block)  # type: ignore[arg-type]


@given(EVENTS)
def test_an_encoded_event_is_parsed_into_one_that_encodes_the_same(event: Event) -> None:
    wire = event.encode()
    if wire.endswith(b"\n\n"):
        assert Event.parse(wire).encode() == wire
    else:
        with pytest.raises(InvalidEvent):
            Event.parse(wire)
