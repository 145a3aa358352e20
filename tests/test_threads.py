"""A source under servers that give each client a thread: what holds where it waits in ours."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.clients import Client, after_opening
from tests.commands import program
from tests.ports import free_port
from tests.servers import Server, gunicorn, running
from tests.waiting import mostly_below, until

APP = "tests.apps.sources:app"
WAITRESS = [sys.executable, "-m", "waitress", "--threads=16"]


@pytest.fixture(scope="module", params=["gthread", "waitress", "wsgiref"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    port = free_port()
    if request.param == "gthread":
        options = ["--threads", "16", "--graceful-timeout", "1"]
        with gunicorn(APP, *options, worker="gthread") as started:
            yield started
    elif request.param == "waitress":
        with running([*WAITRESS, f"--listen=127.0.0.1:{port}", APP], port) as started:
            yield started
    else:
        with running(program("wsgiref_threads", str(port)), port) as started:
            yield started


def counts(server: Server) -> dict[str, Any]:
    with Client(f"{server.url}/counts") as client:
        client.until_body(b"\n\n")
        return dict(json.loads(client.events[0].data))


def seconds_to_leave(server: Server) -> float:
    before = counts(server)
    with Client(f"{server.url}/ticking") as client:
        assert client.wait(1)[0].data == "0"
        client.until_body(b"\n\n:\n:\n:\n")
    left = time.monotonic()
    after = until(lambda: (now := counts(server))["ended"] == before["ended"] + 1 and now)
    return float(after["at"][-1]) - left


def test_a_source_that_waits_in_every_beats_and_ends_when_the_client_leaves(server: Server) -> None:
    assert mostly_below(0.1, lambda: seconds_to_leave(server))


def test_a_script_that_waits_in_every_sees_its_client_leave(server: Server) -> None:
    with Client(f"{server.url}/folder/count.py") as client:
        assert [event.data for event in client.wait(3)] == ["1", "2", "3"]
    with Client(server.url) as client:
        assert client.until_body(b"ok") == b"ok"


def test_a_sleeping_source_has_its_opening_and_first_event(server: Server) -> None:
    with Client(f"{server.url}/quiet") as client:
        assert client.wait(1)[0].data == "sleeping"
        assert after_opening(client.body) == b"data: sleeping\n\n"


def seconds_to_stop_gthread() -> float:
    with gunicorn(APP, "--threads", "30", worker="gthread") as server, ExitStack() as stack:
        clients = [stack.enter_context(Client(f"{server.url}/ticking")) for _ in range(20)]
        for client in clients:
            client.wait(1)
        took = server.seconds_to_stop()
        for client in clients:
            client.until_closing_retry()
        return took


def test_gthread_ends_waiting_streams_well_in_under_2_seconds() -> None:
    assert seconds_to_stop_gthread() < 2
