"""Taking a client over is all or nothing: where a step fails, its stream is iterated."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients import Client
from tests.servers import Server, gunicorn
from tests.test_fanout import get, inside, publish, texts
from tests.waiting import until


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with gunicorn("tests.apps.failing_takes:app") as running:
        yield running


@pytest.mark.parametrize("step", ["duplicate", "viewer", "bound", "watch", "abandon"])
def test_a_client_that_could_not_be_taken_over_gets_all_from_the_server(
    server: Server, step: str
) -> None:
    with Client(server.url) as client:  # What the worker opens once is open then.
        client.wait(1)
        until(lambda: inside(server)[0] == 1)
    until(lambda: inside(server)[0] == 0)
    descriptors = inside(server)[1]
    get(f"{server.url}/fail?step={step}")
    with Client(server.url) as client:
        assert client.wait(1)[0].event == "stream-open"
        publish(server, "one", "two")
        client.wait(3)
        client.until_body(b"\n:\n")  # All of it in chunks, or the client would not read on.
        assert client.chunked
        assert texts(client) == ["one", "two"]
        assert inside(server)[0] == 0
        assert inside(server)[1] == descriptors + 1, "a descriptor was leaked"
    assert f"could not be taken over, and keeps its greenlet: {step} fails" in server.log
    until(lambda: get(f"{server.url}/open") == "0")
    assert inside(server) == (0, descriptors)
