"""Streams that leave the server: generators and ticking functions, taken over and iterated.

Each test runs where gunicorn hands the connection over, and where every stream is iterated.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from typing import Any

import pytest

from ssekit.testing import connect
from tests.apps import ticking
from tests.clients import Client, after_opening
from tests.servers import Server, gunicorn
from tests.waiting import mostly_below, until

APP = "tests.apps.ticking:app"
WAYS = {"taken over": {}, "iterated": {"SSEKIT_FANOUT": "off"}}


@pytest.fixture(scope="module", params=WAYS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with gunicorn(APP, env=WAYS[request.param]) as running:
        yield running


def state(server: Server) -> dict[str, Any]:
    with Client(f"{server.url}/state") as client:
        return dict(json.loads(client.until_end()))


def test_a_ticking_function_has_a_state_for_each_client(server: Server) -> None:
    with Client(f"{server.url}/counting") as one:
        events = [json.loads(event.data) for event in one.wait(4)]
        with Client(f"{server.url}/counting") as two:
            assert json.loads(two.wait(1)[0].data) == {"number": 0, "total": 0}
    assert events[0] == {"number": 0, "total": 0}
    numbers = [event["number"] for event in events]
    assert numbers == sorted(set(numbers))
    assert [event["total"] for event in events] == [sum(numbers[: n + 1]) for n in range(4)]


def test_a_tick_knows_its_request_also_later(server: Server) -> None:
    headers = {"X-Mine": "mine", "Last-Event-ID": "7-\u00e9".encode().decode("latin-1")}
    with Client(f"{server.url}/asking?a=b", headers=headers) as client:
        events = [json.loads(event.data) for event in client.wait(3)]
    expected = {"path": "/", "query": "b", "header": "mine", "last": "7-\u00e9"}
    assert events[-1] == expected


def test_a_function_that_returns_none_sends_nothing_but_heartbeats(server: Server) -> None:
    with Client(f"{server.url}/nothing") as client:
        body = client.until_body(b":\n:\n:\n")
    assert after_opening(body).strip(b":\n") == b""
    assert state(server)["called"]["nothing"] > 3


def test_stop_ends_a_ticking_stream_orderly(server: Server) -> None:
    with Client(f"{server.url}/stopping") as client:
        body = client.until_end()
        assert client.cleanly
    assert body.startswith(b"retry: 5000\ndata: 0\n\n")
    assert body.count(b"retry: ") == 1


@pytest.mark.parametrize(
    ("path", "events", "error"),
    [("/failing", ["0", "1"], "ZeroDivisionError"), ("/invalid", [], "InvalidEvent")],
)
def test_a_function_that_fails_ends_its_stream_between_events(
    server: Server, path: str, events: list[str], error: str
) -> None:
    with Client(f"{server.url}{path}") as client:
        client.until_closing_retry()
        assert [event.data for event in client.events] == events
    until(lambda: error in server.log)


def test_a_function_that_waits_delays_no_other_client_and_has_heartbeats(server: Server) -> None:
    with ExitStack() as stack:
        waiting = [stack.enter_context(Client(f"{server.url}/waiting")) for _ in range(20)]
        counting = stack.enter_context(Client(f"{server.url}/counting"))
        for client in waiting:
            client.until_body(b"\n:\n:\n:\n")
        assert len(counting.wait(10)) == 10


def seconds_to_leave(server: Server, path: str) -> float:
    before = len(state(server)["ended"])
    with Client(f"{server.url}{path}") as client:
        client.until_body(b"\n:\n")
    left = time.monotonic()
    after = until(lambda: len(now := state(server)["ended"]) > before and now)
    return float(after[-1]) - left


def test_leaving_ends_a_function_that_waits_within_100_ms(server: Server) -> None:
    assert mostly_below(0.1, lambda: seconds_to_leave(server, "/waiting"))


def test_a_function_that_catches_everything_is_ended_again_and_logged(server: Server) -> None:
    before = state(server)["open"]
    with Client(f"{server.url}/stubborn") as client:
        client.until_body(b"\n:\n")
    until(lambda: state(server)["open"] == before)
    until(lambda: "it is ended again" in server.log)


def test_a_client_that_does_not_read_gets_no_ticks_and_then_whole_events(server: Server) -> None:
    with Client(f"{server.url}/large") as client:
        client.wait(1)

        def still() -> bool:
            before = state(server)["called"]["large"]
            time.sleep(0.3)
            return bool(state(server)["called"]["large"] == before)

        until(still, 20)
        events = client.wait(30)
        assert all(event.data == "x" * 65536 for event in events)
        ids = [int(event.id or 0) for event in events]
        assert ids == list(range(ids[0], ids[0] + 30))


def test_a_source_waits_for_its_client_and_loses_nothing(server: Server) -> None:
    with Client(f"{server.url}/numbers") as client:
        client.wait(1)
        time.sleep(0.5)
        client.until_end(30)
        assert client.cleanly
        assert [int(event.data.split(".")[0]) for event in client.events] == list(range(80))


def test_a_source_keeps_its_context(server: Server) -> None:
    with Client(f"{server.url}/coloured") as client:
        assert [event.data for event in client.wait(3)] == ["red"] * 3


def test_flasks_request_context_is_there_until_the_source_has_ended(server: Server) -> None:
    with Client(f"{server.url}/flask/three?a=x") as client:
        client.until_end()
        assert [event.data for event in client.events] == ["x"] * 3
    with Client(f"{server.url}/flask/?a=y") as client:
        client.wait(2)
    until(lambda: state(server)["called"].get("left with y"))
    assert "different Context" not in server.log


def test_a_source_can_read_its_request_after_the_stream_has_begun(server: Server) -> None:
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=10)) as connection:
        connection.request("POST", "/reading", b"x" * 1_000_000)
        body = connection.getresponse().read()
    assert after_opening(body) == b"data: 0\n\ndata: 1000000\n\n"


def test_middleware_that_changes_blocks_changes_those_of_ticks_too(server: Server) -> None:
    with Client(f"{server.url}/upper") as client:
        client.until_body(b'DATA: {"NUMBER":2')


def test_neither_descriptors_nor_streams_are_left(server: Server) -> None:
    def open_and_leave() -> None:
        with ExitStack() as stack:
            for path in ("/rare", "/coloured", "/counting"):
                for _ in range(20):
                    stack.enter_context(Client(f"{server.url}{path}")).wait(1)
        until(lambda: state(server)["open"] == 0)

    until(lambda: state(server)["open"] == 0)
    open_and_leave()
    before = state(server)["descriptors"]
    for _ in range(3):
        open_and_leave()
    until(lambda: state(server)["descriptors"] <= before + 2)


def test_streams_that_were_taken_over_leave_the_servers_places_to_others() -> None:
    with gunicorn(APP, "--worker-connections", "20") as server, ExitStack() as stack:
        for n in range(60):
            path = ("/rare", "/coloured", "/counting")[n % 3]
            stack.enter_context(Client(f"{server.url}{path}")).wait(1)
        assert state(server)["open"] == 60


def seconds_to_stop(number: int) -> float:
    with gunicorn(APP) as server, ExitStack() as stack:
        paths = ("/rare", "/coloured", "/counting", "/waiting", "/flask/?a=b")
        clients = [
            stack.enter_context(Client(f"{server.url}{paths[n % 5]}", timeout=30))
            for n in range(150)
        ]
        for client in clients:
            client.until_body(b"\n")
        until(lambda: state(server)["open"] == 150)
        took = server.seconds_to_stop(number)
        for client in clients:
            client.until_closing_retry()
        assert server.log.count("ended='process ending'") == 150
        return took


@pytest.mark.timeout(180)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_ends_150_taken_streams_well_in_under_2_seconds(number: int) -> None:
    assert mostly_below(2, lambda: seconds_to_stop(number))


@pytest.mark.parametrize("path", ["/rare", "/coloured", "/upper"])
def test_a_worker_exits_once_its_streams_have_ended_and_its_requests_are_answered(
    path: str,
) -> None:
    worker = "tests.apps.seldom_looking.SeldomLooking"
    options = ("--keep-alive", "0", "--timeout", "0")
    with (
        gunicorn(APP, *options, worker=worker) as server,
        Client(f"{server.url}{path}", timeout=30) as client,
        closing(HTTPConnection("127.0.0.1", server.port, timeout=30)) as request,
    ):
        client.until_body(b"\n")
        request.request("GET", "/slow")
        until(lambda: state(server)["called"].get("slow"))
        assert server.seconds_to_stop() < 15
        client.until_closing_retry()
        assert request.getresponse().read() == b"at last"
        assert server.process.returncode == 0


def test_a_worker_that_exits_takes_no_request_that_it_does_not_answer() -> None:
    with gunicorn("tests.apps.slow_exit:app") as server, Client(f"{server.url}/rare") as client:
        client.until_body(b"\n")
        (worker,) = server.children()

        def ask(number: int) -> int:
            time.sleep(number / 10)
            with Client(f"{server.url}/slow") as asked:
                return asked.status

        os.kill(worker, signal.SIGTERM)
        client.until_closing_retry()
        with ThreadPoolExecutor(15) as pool:
            assert set(pool.map(ask, range(15))) == {200}


def test_a_ticking_stream_works_in_a_thread_too() -> None:
    with connect(ticking.counting, timeout=5) as stream:
        numbers = [json.loads(next(stream).data)["number"] for _ in range(2)]
    assert numbers[0] == 0
    with connect(ticking.stopping, timeout=5) as stream:
        assert stream.read_all().startswith(b"retry: 5000\ndata: 0\n\n")
    with connect(ticking.asking, "/?a=b", headers={"X-Mine": "m"}, timeout=5) as stream:
        events = [json.loads(next(stream).data) for _ in range(3)]
    assert events[-1] == {"path": "/", "query": "b", "header": "m", "last": None}


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_ticks_need_seconds_above_zero(seconds: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        ticking.Stream.every(seconds)(lambda tick: None)
