"""What all viewers of a process have in common is done once, however many they are."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.clients import Client
from tests.servers import Server, gunicorn
from tests.test_fanout import texts

VIEWERS = 20
EVENTS = ["one", "two", "three"]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with gunicorn("tests.apps.sharing:app") as running:
        with Client(f"{running.url}/news") as client:
            client.until_body(b"stream-open")  # From now on the process follows its log.
        yield running


def get(server: Server, path: str) -> Any:
    with Client(server.url + path) as client:
        return json.loads(client.until_end())


def publish(server: Server) -> list[str]:
    return [get(server, f"/publish?data={text}")[0] for text in EVENTS]


def test_an_event_is_encoded_once_and_framed_once_for_each_framing(server: Server) -> None:
    with ExitStack() as stack:
        clients = [
            stack.enter_context(Client(f"{server.url}/news", version=version))
            for version in ("1.0", "1.1")
            for _ in range(VIEWERS)
        ]
        for client in clients:
            client.until_body(b"stream-open")
        get(server, "/counted")
        publish(server)
        for client in clients:
            client.wait(1 + len(EVENTS))
            assert texts(client) == EVENTS
        counts = get(server, "/counted")
    # With chunks and without.
    assert (counts["encoded"], counts["framed"]) == (len(EVENTS), 2 * len(EVENTS))
    assert counts.get("reads", 0) == 0


def test_viewers_who_come_back_share_what_they_missed(server: Server) -> None:
    first, *_ = publish(server)
    get(server, "/counted")
    with ExitStack() as stack:
        for _ in range(VIEWERS):
            client = stack.enter_context(Client(f"{server.url}/news?last_event_id={first}"))
            client.wait(2)
            assert texts(client) == EVENTS[1:]
        counts = get(server, "/counted")
    openings = VIEWERS  # each says another retry
    assert counts.get("pieces") == 1
    assert counts.get("framed") == 1 + openings
    assert counts.get("encoded", 0) == counts.get("reads", 0) == 0
    # The headers too leave with what was missed; the server sends its own answers.
    assert counts["sent"] == VIEWERS
    assert counts.get("sent by the server", 0) < VIEWERS


def test_viewers_with_a_channel_each_are_read_for_together(server: Server) -> None:
    before = get(server, f"/fill?channels={VIEWERS}")
    get(server, "/counted")
    with ExitStack() as stack:
        connections = []
        for n in range(VIEWERS):
            connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
            stack.enter_context(connection)
            path = f"/own{n}?last_event_id={before}"
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            connections.append(connection)
        for connection in connections:
            received = b""
            while b"data: missed\n" not in received:
                piece = connection.recv(65_536)
                assert piece, received
                received += piece
            assert received.count(b"data: missed\n") == 1
        # One at a time would be as many readings as viewers.
        assert 1 <= get(server, "/counted")["reads"] <= VIEWERS // 2
