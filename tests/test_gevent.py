"""A source under `gunicorn -k gevent`, with nothing else said: beats, leaves, endings."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ssekit import Event
from tests.clients import Client
from tests.servers import Server, gunicorn
from tests.waiting import at_best, until

APP = "tests.apps.sources:app"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with gunicorn(APP, "--worker-connections", "3000") as running:
        yield running


def counts(server: Server) -> dict[str, Any]:
    with Client(f"{server.url}/counts") as client:
        client.until_end()
        return dict(json.loads(client.events[0].data))


def test_a_block_leaves_at_once_and_a_sleeping_source_has_heartbeats(server: Server) -> None:
    with Client(f"{server.url}/sleeping") as client:
        assert client.wait(1) == [Event("sleeping", "message", "")]
        client.until_body(b":\ndata: sleeping\n\n:\n:\n:\n")
        assert client.events == [Event("sleeping", "message", "")]


def test_http_1_0_has_heartbeats_too(server: Server) -> None:
    with Client(f"{server.url}/sleeping", version="1.0") as client:
        assert not client.chunked
        client.until_body(b":\ndata: sleeping\n\n:\n:\n:\n")


def test_a_source_that_yields_nothing_has_its_opening_and_heartbeats(server: Server) -> None:
    with Client(f"{server.url}/silent") as client:
        client.until_body(b":\n:\n:\n:\n")


def test_behind_middleware_that_changes_blocks_the_heartbeats_go_through_it(server: Server) -> None:
    with Client(f"{server.url}/upper") as client:
        client.until_body(b":\nDATA: SLEEPING\n\n:\n:\n")
    before = counts(server)
    until(lambda: counts(server)["ended"] == before["opened"])


def slowest_of_200_leaves(server: Server) -> float:
    """Seconds from a client's leaving to its source's end, for the slowest of 200 at once."""
    before = counts(server)
    with Crowd() as crowd:
        clients = crowd.join(server, ["/quiet"], 200)
        assert counts(server)["ended"] == before["ended"]
        left = []
        for client in clients:
            client.close()
            left.append(time.monotonic())
    after = until(lambda: (now := counts(server))["ended"] == before["ended"] + 200 and now)
    return max(end - leave for leave, end in zip(left, after["at"], strict=True))


def test_200_sleeping_sources_end_within_100_ms_of_their_clients_leaving(server: Server) -> None:
    assert any(slowest < 0.1 for slowest in at_best(lambda: slowest_of_200_leaves(server)))


def test_a_source_that_catches_everything_is_ended_again_and_logged(server: Server) -> None:
    before = counts(server)
    with Client(f"{server.url}/stubborn") as client:
        client.wait(1)
    until(lambda: counts(server)["ended"] == before["ended"] + 1)
    until(lambda: "it is ended again" in server.log)


def test_a_client_that_stops_reading_and_leaves_ends_its_source(server: Server) -> None:
    before = counts(server)
    with Client(f"{server.url}/endless") as client:
        client.until_body(b"data: xxx")
    until(lambda: counts(server)["ended"] == before["ended"] + 1)


def test_errors_have_a_clear_answer_and_the_worker_goes_on(server: Server) -> None:
    with Client(f"{server.url}/broken") as client:
        assert client.status == 500
    with Client(f"{server.url}/failing") as client:
        body = client.until_end()
        assert body.startswith(b":\ndata: before\n\nretry: ")
        assert client.cleanly
    until(lambda: "after the first event" in server.log)
    with Client(f"{server.url}/sleeping", method="HEAD") as client:
        assert (client.status, client.headers["Content-Type"]) == (
            200,
            "text/event-stream; charset=utf-8",
        )
    with Client(f"{server.url}/sleeping", method="POST", body=b"x=1") as client:
        assert client.status == 405
    with Client(f"{server.url}/sleeping", method="OPTIONS") as client:
        assert client.status == 204
    with Client(f"{server.url}/sleeping", headers={"X-Long": "x" * 8000}) as client:
        assert client.status == 200
    with Client(f"{server.url}/sleeping", headers={"X-Long": "x" * 9000}) as client:
        assert client.status == 431
    with Client(server.url) as client:
        assert client.until_end() == b"ok"


def test_a_script_that_does_not_compile_is_logged(tmp_path: Path) -> None:
    tmp_path.joinpath("wrong.py").write_text("def this is not Python")
    with gunicorn(f"ssekit.script:Folder({str(tmp_path)!r})") as server:
        with Client(f"{server.url}/wrong.py") as client:
            assert client.status == 500
        until(lambda: "SyntaxError" in server.log)
        tmp_path.joinpath("wrong.py").write_text("from ssekit.script import send; send('mended')")
        with Client(f"{server.url}/wrong.py") as client:
            assert client.wait(1)[0].data == "mended"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/folder/missing.py", 404),
        ("/folder/", 404),
        ("/folder", 404),
        ("/folder/echo", 404),
        ("/folder/../sources.py", 404),
        ("/folder/..%2fsources.py", 404),
        ("/folder/%2e%2e/sources.py", 404),
        ("/folder//etc/passwd", 404),
        ("/folder/echo.py%00.py", 404),
        ("/folder/echo.py/more", 404),
        ("/folder/broken.py", 500),
    ],
)
def test_a_script_that_cannot_run_has_a_clear_answer(
    server: Server, path: str, status: int
) -> None:
    with Client(server.url + path) as client:
        assert client.status == status
        assert len(client.until_end().splitlines()) == 1


def test_a_script_is_run_for_each_client(server: Server) -> None:
    with Client(f"{server.url}/folder/count.py") as one:
        one.wait(3)
        with Client(f"{server.url}/folder/count.py") as two:
            assert [event.data for event in two.wait(3)] == ["1", "2", "3"]
            assert two.body.startswith(b":\n: begun\ndata: 1\nid: 1\n\n")
            assert [event.data for event in one.wait(6)] == ["1", "2", "3", "4", "5", "6"]


def test_a_script_knows_its_request_and_has_heartbeats(server: Server) -> None:
    header = {"Last-Event-ID": "18c3-\u00e9".encode().decode("latin-1")}
    with Client(f"{server.url}/folder/echo.py?last_event_id=0", headers=header) as client:
        (event,) = client.wait(1)
        assert json.loads(event.data) == {"last": "18c3-\u00e9", "path": "/echo.py"}
        client.until_body(b"\n\n:\n:\n:\n")
    with Client(f"{server.url}/folder/echo.py", headers={"Last-Event-ID": "\xff"}) as client:
        assert json.loads(client.wait(1)[0].data)["last"] == "\ufffd"
    with Client(f"{server.url}/folder/echo.py?last_event_id=7") as client:
        assert json.loads(client.wait(1)[0].data)["last"] == "7"


def test_a_script_that_fails_later_ends_its_stream_cleanly(server: Server) -> None:
    with Client(f"{server.url}/folder/failing.py") as client:
        assert client.until_end().startswith(b":\ndata: before\n\nretry: ")
        assert client.cleanly
    with Client(f"{server.url}/folder/injecting.py") as client:
        assert client.until_end() == b":\ndata: refused\n\n"


def test_1000_scripts_run_at_once_and_other_requests_are_answered(server: Server) -> None:
    with Crowd() as crowd:
        for client in crowd.join(server, ["/folder/echo.py"], 1000):
            client.wait(1)
        with Client(server.url) as client:
            assert client.until_end() == b"ok"


def farewell_was_said(client: Client) -> bool:
    client.until_end(10)
    *_, last, end = client.body.lower().split(b"\n")
    return client.cleanly and last.startswith(b"retry: ") and end == b""


class Crowd(ExitStack):
    """Many clients, closed together."""

    def join(self, server: Server, paths: list[str], count: int) -> list[Client]:
        clients = [
            self.enter_context(Client(f"{server.url}{paths[n % len(paths)]}", timeout=30))
            for n in range(count)
        ]
        for client in clients:
            client.until_body(b":\n")
        return clients


def seconds_to_stop_500(folder: Path, number: int) -> float:
    folder.mkdir()
    with gunicorn(APP, env={"ENDED_FOLDER": str(folder)}) as server, Crowd() as crowd:
        clients = crowd.join(server, ["/quiet", "/ticking", "/upper"], 499)
        clients += crowd.join(server, ["/folder/echo.py"], 1)
        until(lambda: counts(server)["opened"] == 499)
        began = time.monotonic()
        server.stop(number)
        took = time.monotonic() - began
        assert sum(map(farewell_was_said, clients)) == 500
        assert len(list(folder.iterdir())) == 499
        return took


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_ends_500_streams_well_in_under_2_seconds(tmp_path: Path, number: int) -> None:
    folders = map(tmp_path.joinpath, "12345")
    assert any(took < 2 for took in at_best(lambda: seconds_to_stop_500(next(folders), number)))


def seconds_to_reload(folder: Path) -> float:
    folder.mkdir()
    with gunicorn(APP, env={"ENDED_FOLDER": str(folder)}) as server, Crowd() as crowd:
        (old,) = until(server.children)
        clients = crowd.join(server, ["/quiet", "/ticking"], 100)
        until(lambda: counts(server)["opened"] == 100)
        began = time.monotonic()
        server.process.send_signal(signal.SIGHUP)
        until(lambda: old not in server.children(), what="the old worker to go")
        assert counts(server)["opened"] == 0
        took = time.monotonic() - began
        assert all(map(farewell_was_said, clients))
        assert len(list(folder.iterdir())) == 100
        return took


def test_a_reload_ends_the_old_streams_and_new_workers_serve(tmp_path: Path) -> None:
    folders = map(tmp_path.joinpath, "12345")
    assert any(took < 2 for took in at_best(lambda: seconds_to_reload(next(folders))))
