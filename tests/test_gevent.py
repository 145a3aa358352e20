"""A source under `gunicorn -k gevent`, with nothing else said: beats, leaves, endings."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import SHUT_RDWR, SHUT_WR
from threading import Thread
from typing import Any

import pytest

from ssekit import Event
from tests.clients import Client, Clients, after_opening
from tests.ports import free_port
from tests.servers import Server, gunicorn, running, seconds_without_processor
from tests.waiting import until

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
        assert after_opening(client.until_body(b"\n\n:\n:\n:\n")).startswith(
            b"data: sleeping\n\n:\n"
        )
        assert client.events == [Event("sleeping", "message", "")]


def test_http_1_0_has_heartbeats_too(server: Server) -> None:
    with Client(f"{server.url}/sleeping", version="1.0") as client:
        assert not client.chunked
        assert after_opening(client.until_body(b"\n\n:\n:\n:\n")).startswith(
            b"data: sleeping\n\n:\n"
        )


def test_a_source_that_yields_nothing_has_its_opening_and_heartbeats(server: Server) -> None:
    with Client(f"{server.url}/silent") as client:
        assert after_opening(client.until_body(b":\n:\n:\n")).strip(b":\n") == b""


def test_behind_middleware_that_changes_blocks_the_heartbeats_go_through_it(server: Server) -> None:
    with Client(f"{server.url}/upper") as client:
        assert client.until_body(b"\nDATA: SLEEPING\n\n:\n:\n").startswith(b"RETRY: ")
    before = counts(server)
    until(lambda: counts(server)["ended"] == before["opened"])


def share_of_200_leaves_within_100_ms(server: Server) -> float:
    """How many of 200 sources have ended within 100 ms when their clients leave at once.

    Less the time in which the server or we had no processor, which is not the source's delay.
    """
    before = counts(server)
    pids = (os.getpid(), *server.children())
    with Clients() as crowd:
        clients = crowd.join(200, f"{server.url}/quiet", first=b"\n")
        assert counts(server)["ended"] == before["ended"]
        left = []
        waited = sum(map(seconds_without_processor, pids))
        for client in clients:
            client.close()
            left.append(time.monotonic())
    after = until(lambda: (now := counts(server))["ended"] == before["ended"] + 200 and now)
    waited = sum(map(seconds_without_processor, pids)) - waited
    took = [end - leave - waited for leave, end in zip(left, after["at"], strict=True)]
    return sum(one < 0.1 for one in took) / 200


def test_200_sleeping_sources_end_within_100_ms_of_their_clients_leaving(server: Server) -> None:
    assert share_of_200_leaves_within_100_ms(server) > 0.95


@pytest.mark.parametrize("path", ["/quiet", "/upper"])
def test_a_client_that_closes_its_sending_side_counts_as_disconnected(
    server: Server, path: str
) -> None:
    before = counts(server)
    with Client(f"{server.url}{path}") as client:
        client.until_body(b"\n\n")
        client.socket.shutdown(SHUT_WR)
        until(lambda: counts(server)["ended"] == before["ended"] + 1)


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


@contextmanager
def reading(url: str) -> Iterator[None]:
    """Read a stream as fast as it comes, beside the block."""
    with Client(url) as client:

        def read() -> None:
            with suppress(ConnectionError):  # What is left unread is no orderly end.
                while client.socket.recv(1 << 20):
                    pass

        reader = Thread(target=read)
        reader.start()
        try:
            yield
        finally:
            client.socket.shutdown(SHUT_RDWR)
            reader.join()


@pytest.mark.parametrize("path", ["/flood", "/spin", "/folder/flood.py"])
def test_a_source_that_never_waits_leaves_the_worker_to_others(server: Server, path: str) -> None:
    with reading(server.url + path):
        for _ in range(5):
            counts(server)
        with Client(f"{server.url}/sleeping") as client:
            client.until_body(b"\n:\n:\n:\n")


def test_a_script_is_run_for_each_client(server: Server) -> None:
    with Client(f"{server.url}/folder/count.py") as one:
        one.wait(3)
        with Client(f"{server.url}/folder/count.py") as two:
            assert [event.data for event in two.wait(3)] == ["1", "2", "3"]
            assert re.match(rb"retry: [0-9]+\n: begun\ndata: 1\nid: 1\n\n", two.body)
            assert [event.data for event in one.wait(6)] == ["1", "2", "3", "4", "5", "6"]


def test_the_server_has_done_its_part_before_a_script_goes_on() -> None:
    with (
        gunicorn(APP, "--access-logfile", "-") as server,
        Client(f"{server.url}/folder/printing.py") as client,
    ):
        client.until_end()
        served, goes_on = "GET /folder/printing.py", "the script goes on"
        until(lambda: served in server.log and goes_on in server.log)
        assert server.log.index(served) < server.log.index(goes_on)


def test_a_script_knows_its_request_and_has_heartbeats(server: Server) -> None:
    header = {"Last-Event-ID": "18c3-\u00e9".encode().decode("latin-1")}
    with Client(f"{server.url}/folder/echo.py?last_event_id=0", headers=header) as client:
        (event,) = client.wait(1)
        assert json.loads(event.data) == {"last": "18c3-\u00e9", "path": "/echo.py"}
        client.until_body(b"\n\n:\n:\n:\n")
    with Client(f"{server.url}/folder/echo.py?last_event_id=7") as client:
        assert json.loads(client.wait(1)[0].data)["last"] == "7"


def test_1000_clients_of_the_script_folder_have_a_run_each_and_other_requests_are_answered(
    tmp_path: Path,
) -> None:
    """With the settings and the scripts that the repository has for everybody."""
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "-k", "gevent", "wsgi:app"]
    env = {"SSEKIT_URL": f"sqlite:///{tmp_path / 'hub.db'}"}
    with running([*command, "--bind", f"127.0.0.1:{port}"], port, env=env) as server:
        (worker,) = until(server.children)
        with Clients() as crowd:
            clients = []
            for n in range(1000):
                last = {"Last-Event-ID": str(1000 * n)}
                path = "clock.py" if n % 100 == 99 else "count.py"
                client = Client(f"{server.url}/scripts/{path}", headers=last, timeout=30)
                clients.append(crowd.enter_context(client))
            for n, client in enumerate(clients):
                if n % 100 == 99:
                    assert "Welcome" in client.wait(1)[0].data
                else:  # each counts for itself, from where it was
                    ids = [str(1000 * n + 1), str(1000 * n + 2)]
                    assert [event.id for event in client.wait(2)] == ids
            assert status(server)["streams"] == 1000
            with Client(f"{server.url}/hello") as other:
                assert other.until_end() == b"ok"
        until(lambda: status(server)["streams"] == 0)
        assert server.children() == [worker]


def status(server: Server) -> dict[str, Any]:
    with Client(f"{server.url}/status") as client:
        return dict(json.loads(client.until_end()))


@pytest.mark.parametrize("worker", ["gevent", "gthread"])
def test_streams_that_the_server_ends_are_cut_for_clients_that_misread_an_end(worker: str) -> None:
    header = {"Datastar-Request": "true"}
    options = ["--threads", "8"] if worker == "gthread" else []
    with gunicorn(APP, *options, worker=worker) as server:
        with Client(f"{server.url}/failing", headers=header) as client:
            assert b"data: before\n\nretry: " in client.until_end()
            assert not client.cleanly
        with Client(f"{server.url}/counts", headers=header) as client:
            client.until_end()
            assert client.cleanly, "this source has ended by itself"
        with (
            Client(f"{server.url}/ticking", headers=header) as client,
            Client(f"{server.url}/ticking") as other,
        ):
            client.wait(1)
            other.wait(1)
            server.stop()
            *_, last, end = client.until_end().split(b"\n")
            assert (last[:7], end) == (b"retry: ", b"")
            assert not client.cleanly
            other.until_closing_retry()


def join_ours(crowd: Clients, server: Server, count: int) -> list[Client]:
    """Have clients at sources of each kind."""
    urls = [f"{server.url}/{path}" for path in ("quiet", "ticking", "upper")]
    return crowd.join(count, *urls, first=b"\n")


def seconds_to_stop_500(folder: Path, number: int) -> float:
    folder.mkdir()
    with gunicorn(APP, env={"ENDED_FOLDER": str(folder)}) as server, Clients() as crowd:
        clients = join_ours(crowd, server, 499)
        clients += crowd.join(1, f"{server.url}/folder/echo.py", first=b"\n")
        until(lambda: counts(server)["opened"] == 499)
        took = server.seconds_to_stop(number)
        assert len(clients) == 500
        for client in clients:
            client.until_closing_retry()
        assert len(list(folder.iterdir())) == 499
        return took


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_ends_500_streams_well_in_under_2_seconds(tmp_path: Path, number: int) -> None:
    assert seconds_to_stop_500(tmp_path / "ended", number) < 2


def seconds_to_reload_500(folder: Path) -> float:
    folder.mkdir()
    with gunicorn(APP, env={"ENDED_FOLDER": str(folder)}) as server, Clients() as crowd:
        (old,) = until(server.children)
        clients = join_ours(crowd, server, 499)
        clients += crowd.join(1, f"{server.url}/folder/echo.py", first=b"\n")
        until(lambda: counts(server)["opened"] == 499)
        server.process.send_signal(signal.SIGHUP)
        took = server.seconds_until(
            lambda: old not in server.children() and counts(server)["worker"] != old
        )
        assert len(clients) == 500
        for client in clients:
            client.until_closing_retry()
        assert len(list(folder.iterdir())) == 499
        return took


def test_a_reload_ends_500_streams_well_and_new_workers_serve_within_2_seconds(
    tmp_path: Path,
) -> None:
    assert seconds_to_reload_500(tmp_path / "ended") < 2
