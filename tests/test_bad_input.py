"""What nobody should send or write has a clear answer, and the worker goes on serving."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssekit import Event
from tests.apps.sources import INVALID
from tests.clients import Client, after_opening
from tests.servers import Server, gunicorn
from tests.test_gevent import counts
from tests.waiting import until


@pytest.fixture(scope="module")
def one_worker() -> Iterator[tuple[Server, int]]:
    with gunicorn("tests.apps.sources:app") as running:
        yield running, counts(running)["worker"]


@pytest.fixture
def server(one_worker: tuple[Server, int]) -> Iterator[Server]:
    """The server, which after the test has to serve as before, from the same process."""
    running, worker = one_worker
    yield running
    assert counts(running)["worker"] == worker
    with Client(f"{running.url}/sleeping") as client:
        assert client.wait(1) == [Event("sleeping", "message", "")]


@pytest.mark.parametrize("path", ["/broken", "/refused"])
def test_a_source_that_raises_before_its_first_event_is_a_500(server: Server, path: str) -> None:
    with Client(server.url + path) as client:
        assert client.status == 500
        client.until_end()
    until(lambda: "before the first event" in server.log)


def test_a_source_that_raises_after_its_first_event_ends_its_stream_cleanly(server: Server) -> None:
    with Client(f"{server.url}/failing") as client:
        assert after_opening(client.until_end()).startswith(b"data: before\n\nretry: ")
        assert client.cleanly
    until(lambda: "RuntimeError: after the first event" in server.log)


@pytest.mark.parametrize("what", INVALID)
def test_an_invalid_event_ends_its_stream_cleanly_and_nothing_of_it_is_sent(
    server: Server, what: str
) -> None:
    with Client(f"{server.url}/invalid?what={what.replace(' ', '%20')}") as client:
        *lines, last, end = after_opening(client.until_end()).split(b"\n")
        assert client.cleanly
    assert lines == [b"data: before", b""]
    assert last.startswith(b"retry: ")
    assert end == b""
    until(lambda: "InvalidEvent" in server.log)


def test_a_source_that_yields_nothing_for_an_hour_has_its_opening_and_heartbeats(
    server: Server,
) -> None:
    with Client(f"{server.url}/silent") as client:
        assert after_opening(client.until_body(b":\n:\n:\n")).strip(b":\n") == b""


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/folder/missing.py", 404),
        ("/folder/", 404),
        ("/folder", 404),
        ("/folder/echo", 404),
        ("/folder/broken.py", 500),
        # Out of the folder.
        ("/folder/../sources.py", 404),
        ("/folder/..%2fsources.py", 404),
        ("/folder/%2e%2e/sources.py", 404),
        ("/folder/..%5csources.py", 404),
        ("/folder//etc/passwd", 404),
        ("/folder/echo.py%00.py", 404),
        ("/folder/echo.py/more", 404),
        ("/folder/./echo.py", 404),
    ],
)
def test_a_script_that_cannot_run_has_a_clear_answer(
    server: Server, path: str, status: int
) -> None:
    with Client(server.url + path) as client:
        assert client.status == status
        assert len(client.until_end().splitlines()) == 1


def test_a_script_that_does_not_compile_is_a_500_until_it_is_mended(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("def this is not Python")
    with gunicorn(f"ssekit.script:Folder({str(tmp_path)!r})") as server:
        for _ in range(2):
            with Client(f"{server.url}/script.py") as client:
                assert client.status == 500
        until(lambda: "SyntaxError" in server.log)
        script.write_text("from ssekit.script import send; send('mended')")
        with Client(f"{server.url}/script.py") as client:
            assert client.wait(1)[0].data == "mended"


def test_a_script_that_fails_later_ends_its_stream_cleanly(server: Server) -> None:
    with Client(f"{server.url}/folder/failing.py") as client:
        assert after_opening(client.until_end()).startswith(b"data: before\n\nretry: ")
        assert client.cleanly


def test_a_script_can_catch_an_invalid_event_and_nothing_of_it_is_sent(server: Server) -> None:
    with Client(f"{server.url}/folder/injecting.py") as client:
        assert after_opening(client.until_end()) == b"data: refused\n\n"


@pytest.mark.parametrize("last", ["\xff\xfe-7", "\xed\xa0\x80"])
def test_a_last_event_id_that_is_not_utf_8_is_one_that_nobody_gave(
    server: Server, last: str
) -> None:
    header = {"Last-Event-ID": last}  # written in latin-1: each character is a byte
    with Client(f"{server.url}/folder/echo.py", headers=header) as client:
        assert "\ufffd" in json.loads(client.wait(1)[0].data)["last"]
    with Client(f"{server.url}/hub", headers=header) as client:
        (event,) = client.wait(1)
        assert (event.event, event.data) == ("stream-reset", '{"reason":"history-lost"}')
    with Client(f"{server.url}/sleeping", headers=header) as client:
        assert client.wait(1)[0].data == "sleeping"


@pytest.mark.parametrize("path", ["/sleeping", "/folder/echo.py", "/hub"])
def test_8_kb_headers_are_no_harm_and_more_is_a_431(server: Server, path: str) -> None:
    for name in ("X-Long", "Last-Event-ID", "Cookie"):
        with Client(server.url + path, headers={name: "x" * 8000}) as client:
            assert client.status == 200
            client.wait(1)
    with Client(server.url + path, headers={"X-Long": "x" * 9000}) as client:
        assert client.status == 431


@pytest.mark.parametrize("path", ["/sleeping", "/folder/echo.py", "/hub"])
def test_head_post_options_and_unknown_methods_get_no_stream(server: Server, path: str) -> None:
    with Client(server.url + path, method="HEAD") as client:
        assert client.status == 200
        assert client.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert not client.read(0.2)  # no byte of a body
    for method, body, status in [
        ("POST", b"x=1", 405),
        ("PUT", b"", 405),
        ("BREW", b"", 405),
        ("OPTIONS", b"", 204),
    ]:
        with Client(server.url + path, method=method, body=body) as client:
            assert client.status == status
            assert client.headers["Allow"] == "GET, HEAD, OPTIONS"
            client.until_end()
