"""Real clients over HTTP: nothing but events is dispatched, and a cut anywhere loses none."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import cycle

import pytest

from ssekit import Event
from tests.apps.recorded import EPOCH
from tests.clients import Client
from tests.followers import FOLLOWERS, SECONDS, Seen
from tests.scripted import Request, Scripted
from tests.servers import Server, gunicorn

pytestmark = [pytest.mark.browser, pytest.mark.slow]

EVENTS = [
    ["message", "one", f"{EPOCH}-1"],
    ["tick", "two\nlines", f"{EPOCH}-2"],
    ["message", '{"three":"\u4e09"}', f"{EPOCH}-3"],
    ["message", "end", f"{EPOCH}-4"],
]
STAGES = [["message", "one", f"{EPOCH}-1"], ["message", "end", f"{EPOCH}-2"]]
PORTS = 8  # Chromium has six connections to each at a time
FETCH, SSECLIENT = "fetch-event-source", "sseclient-py"
# What these two do by themselves, and no server can prevent while it sends one id an event.
# fetch-event-source takes an id when its line arrives, so a cut before the blank line loses the
# event; sseclient-py dispatches the part of an event before a cut, then resumes with the part of
# its id, and so sees events twice.


class Cutting:
    """Answers a stream's first request with the recorded bytes up to a cut, the next with the rest.

    The path is /FRAMING/CUT/NAME.
    """

    def __init__(self, wire: bytes) -> None:
        self.wire = wire
        self._begun: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, request: Request, connection: socket.socket) -> None:
        framing, cut = request.target.split("/")[1:3]
        with self._lock:
            first = request.target not in self._begun
            self._begun.add(request.target)
        whole = self.wire if first else self.after(request.last_event_id)
        part = whole[: int(cut)] if first else whole
        head = ["HTTP/1.1 200 OK", "Content-Type: text/event-stream", "Connection: close"]
        head.append("Access-Control-Allow-Origin: *")
        if framing == "chunked":
            # One chunk, announced whole and cut within; the answer that is not cut ends well.
            head += ["Transfer-Encoding: chunked", "", f"{len(whole):x}\r\n"]
            part += b"" if first else b"\r\n0\r\n\r\n"
        else:
            head += ["", ""]
        connection.sendall("\r\n".join(head).encode() + part)

    @staticmethod
    def after(last_event_id: str | None) -> bytes:
        """What a source sends to a client that comes back; all of it for an id it does not know."""
        ids = [event[2] for event in EVENTS]
        seen = ids.index(last_event_id) + 1 if last_event_id in ids else 0
        blocks = [Event(data, name, key).encode() for name, data, key in EVENTS[seen:]]
        return b":\n" + b"".join(blocks)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with gunicorn("tests.apps.recorded:app") as running:
        yield running


@pytest.fixture(scope="module")
def wire(server: Server) -> bytes:
    """The bytes of a whole stream, as ssekit has sent them."""
    with Client(f"{server.url}/wire") as client:
        recorded = client.until_end()
    assert recorded.startswith(b"retry: 50\ndata: one\n")
    assert recorded.count(b"\n:\n") >= 2
    assert b"\n\nretry: " in recorded[-13:]
    return recorded


@pytest.fixture(scope="module")
def cutting(wire: bytes) -> Iterator[list[str]]:
    """The addresses of servers that cut."""
    answer = Cutting(wire)
    with ExitStack() as stack:
        yield [stack.enter_context(Scripted([answer])).url for _ in range(PORTS)]


def cases(wire: bytes) -> list[tuple[str, int]]:
    """Every offset where the length is told, as gunicorn does; a sample where it is not."""
    offsets = range(len(wire) + 1)
    return [("chunked", at) for at in offsets] + [("until-the-end", at) for at in offsets[::3]]


@pytest.fixture(scope="module")
def outcomes(
    server: Server, wire: bytes, cutting: list[str]
) -> Iterator[dict[str, Future[list[Seen]]]]:
    """What each client saw of the stages and of each cut; all clients run at once."""
    with ThreadPoolExecutor(len(FOLLOWERS)) as pool:
        futures = {}
        for name, follower in FOLLOWERS.items():
            urls = [f"{server.url}/stages"]
            for (framing, cut), base in zip(cases(wire), cycle(cutting)):
                urls.append(f"{base}{framing}/{cut}/{name.replace(' ', '-')}")
            futures[name] = pool.submit(follower, urls)
        yield futures


@pytest.mark.parametrize("name", FOLLOWERS)
def test_opening_heartbeats_and_closing_retry_dispatch_nothing(
    name: str, outcomes: dict[str, Future[list[Seen]]]
) -> None:
    stages, *_ = outcomes[name].result(2 * SECONDS)
    assert stages == STAGES


@pytest.mark.parametrize("name", FOLLOWERS)
def test_a_connection_cut_at_any_byte_and_resumed_loses_no_event(
    name: str, outcomes: dict[str, Future[list[Seen]]], wire: bytes
) -> None:
    _, *results = outcomes[name].result(2 * SECONDS)
    lost, repeated, remains = [], [], []
    for case, seen in zip(cases(wire), results, strict=True):
        lost += [(case, event) for event in EVENTS if event not in seen]
        repeated += [case for event in EVENTS if seen.count(event) > 1]
        remains += [event for event in seen if event not in EVENTS]
    assert lost == (losses_of_fetch(wire) if name == FETCH else [])
    if name == SSECLIENT:
        assert [event for event in remains if not left_of_an_event(event)] == []
    else:
        assert (repeated, remains) == ([], [])


def losses_of_fetch(wire: bytes) -> list[tuple[tuple[str, int], list[str]]]:
    """Each event, for the cut after its id's line: the one offset where that client loses it."""
    after_id = {
        wire.index(f"id: {event[2]}\n".encode()) + len(event[2]) + 5: event for event in EVENTS[:3]
    }
    return [((framing, at), after_id[at]) for framing, at in cases(wire) if at in after_id]


def left_of_an_event(event: list[str]) -> bool:
    """Is it the beginning of an event, which still has the id before, or a part of its own?"""
    name, data, key = event
    before = ["", *(whole[2] for whole in EVENTS[:-1])]
    return any(
        name in {"message", whole[0]}
        and whole[1].startswith(data)
        and (key == last or whole[2].startswith(key))
        for whole, last in zip(EVENTS, before, strict=True)
    )
