"""How many streams a process admits, and what clients beyond the limit are told."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import Any

import pytest

from ssekit import Hub, Stream
from ssekit.testing import connect
from tests.answers import request
from tests.clients import Client, Clients
from tests.ports import free_port
from tests.servers import Server, gunicorn, running
from tests.test_fanout import APP, get, inside
from tests.waiting import until


def refusals(url: str, accept: str) -> tuple[int, bytes, str | None]:
    with Client(url, headers={"Accept": accept}) as client:
        return client.status, client.until_end(), client.headers["Retry-After"]


def test_beyond_the_limit_clients_are_told_when_to_come_back() -> None:
    with gunicorn(APP, env={"MAX_STREAMS": "5", "BEAT": "60"}) as server:
        with Clients() as crowd:
            crowd.join(3, server.url)
            crowd.join(2, f"{server.url}/passing")
            status, body, _ = refusals(server.url, "text/event-stream")
            assert status == 200
            assert 5000 <= int(body.removeprefix(b"retry: ")) <= 15000
            status, _, retry_after = refusals(server.url, "*/*")
            assert status == 503
            assert 5 <= int(retry_after or 0) <= 15
        until(lambda: inside(server)[0] == 0)
        with Clients() as crowd:
            crowd.join(5, server.url)
        until(lambda: "path=/ address=127.0.0.1 reason='max_streams=5'" in server.log)


def test_streams_that_hold_a_greenlet_leave_gunicorn_some() -> None:
    with (
        gunicorn(APP, "--worker-connections", "40", env={"BEAT": "60"}) as server,
        Clients() as crowd,
    ):
        crowd.join(38, f"{server.url}/passing")
        assert refusals(f"{server.url}/passing", "*/*")[0] == 503
        assert get(f"{server.url}/inside").startswith("0 ")
    with (
        gunicorn(APP, "--worker-connections", "40", env={"BEAT": "60"}) as server,
        Clients() as crowd,
    ):
        crowd.join(100, server.url)
        assert get(f"{server.url}/inside").startswith("100 ")


def test_an_address_has_its_own_limit() -> None:
    hub = Hub(max_per_address=1)
    app = hub.stream("news")

    def from_address(address: str) -> object:
        def application(environ: dict[str, object], start_response: object) -> object:
            return app({**environ, "REMOTE_ADDR": address}, start_response)  # type: ignore[arg-type]

        return application

    with connect(from_address("192.0.2.1")) as one:  # type: ignore[arg-type]
        assert next(one).event == "stream-open"
        with connect(from_address("192.0.2.1")) as again:  # type: ignore[arg-type]
            assert again.read_all().startswith(b"retry: ")
        with connect(from_address("192.0.2.2")) as other:  # type: ignore[arg-type]
            assert next(other).event == "stream-open"
    with connect(from_address("192.0.2.1")) as one:  # type: ignore[arg-type]
        assert next(one).event == "stream-open"
    hub.close()


@pytest.mark.parametrize("limits", [{"max_streams": 0}, {"max_per_address": -1}])
def test_a_limit_is_a_number_of_streams(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="whole number from 1 up"):
        Hub(**limits)  # type: ignore[arg-type]


def bound_of_threads(server: Server, threads: int) -> None:
    """All threads but one take streams, and the last one still answers other requests."""
    with ExitStack() as stack:
        for _ in range(threads - 1):
            client = stack.enter_context(Client(f"{server.url}/ticking"))
            assert client.wait(1)
        assert refusals(f"{server.url}/ticking", "*/*")[0] == 503
        status, body, _ = refusals(f"{server.url}/folder/count.py", "text/event-stream")
        assert (status, body[:7]) == (200, b"retry: ")
        assert get(server.url) == "ok"
        reason = f"the server answers {threads - 1} streams at most"
        until(lambda: reason in server.log)
    until(lambda: refusals(f"{server.url}/failing", "*/*")[0] == 200)


def test_gthread_keeps_a_thread_for_other_requests() -> None:
    with gunicorn("tests.apps.sources:app", "--threads", "4", worker="gthread") as server:
        bound_of_threads(server, 4)


def test_waitress_keeps_a_thread_for_other_requests() -> None:
    port = free_port()
    command = [sys.executable, "-m", "waitress", "--threads=4", f"--listen=127.0.0.1:{port}"]
    with running([*command, "tests.apps.sources:app"], port) as server:
        bound_of_threads(server, 4)


def test_a_server_with_one_thread_streams_to_one_client() -> None:
    options = ["--threads", "1"]
    with gunicorn("tests.apps.sources:app", *options, worker="gthread") as server:
        with Client(f"{server.url}/ticking") as client:
            assert client.wait(1)
        assert get(server.url) == "ok"


@pytest.mark.parametrize(("fields", "status"), [(100, 200), (101, 400), (5000, 400)])
def test_a_query_that_nobody_could_mean_is_refused(fields: int, status: int) -> None:
    query = "&".join(["a=1"] * fields)
    answer = request("GET", Stream(["x"]), QUERY_STRING=query)
    assert answer[0] == status
    hub: Any = Hub()
    answer = request("HEAD", hub.stream("news"), QUERY_STRING=f"{query}&last_event_id=1")
    assert answer[0] == (200 if fields < 100 else 400)
    hub.close()
