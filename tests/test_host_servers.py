"""What ssekit knows of servers, and that a server which has changed is served by PEP 3333 alone."""

from __future__ import annotations

import itertools
import logging
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http.wsgi import Response

from ssekit.host import wsgi_servers
from tests.apps import changed_server
from tests.clients import Client, after_opening
from tests.servers import gunicorn


@pytest.fixture
def response() -> Iterator[SimpleNamespace]:
    """A gunicorn Response as far as ssekit uses one."""
    with socket.socket() as connection:
        yield SimpleNamespace(
            sock=connection,
            chunked=True,
            sent=3,
            headers=[("Content-Type", "text/event-stream")],
            headers_sent=False,
            write=bytes,
            force_close=bytes,
        )


WORKER = SimpleNamespace(alive=True, worker_connections=1000)


@pytest.fixture(autouse=True)
def _nothing_logged_yet() -> None:
    wsgi_servers._changed.clear()
    wsgi_servers._as_known.clear()


def test_a_server_as_we_know_it_has_a_connection(response: SimpleNamespace) -> None:
    body: list[bytes] = []
    connection = changed_server.handle_request(WORKER, response, body)
    assert connection is not None
    assert connection.transparent
    assert connection.capacity == 1000
    assert connection.direct(3)
    connection.cut()
    assert not response.chunked


@pytest.mark.parametrize(
    "name", ["sock", "chunked", "sent", "headers", "headers_sent", "write", "force_close"]
)
def test_a_server_whose_attribute_has_gone_has_none_and_that_is_logged_once(
    response: SimpleNamespace, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    delattr(response, name)
    for _ in range(3):
        assert changed_server.handle_request(WORKER, response, []) is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert name in record.getMessage()


def test_a_server_whose_local_variable_has_another_name_has_none(
    response: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    assert changed_server.renamed(WORKER, response, []) is None
    assert "'resp'" in caplog.text


def test_a_worker_without_alive_has_none(response: SimpleNamespace) -> None:
    worker: Any = SimpleNamespace()
    assert changed_server.handle_request(worker, response, []) is None


def test_under_a_gunicorn_that_has_changed_streams_are_iterated_and_end_with_it() -> None:
    with gunicorn("tests.apps.renamed:app") as server:
        with Client(f"{server.url}/sleeping") as one, Client(f"{server.url}/hub") as two:
            assert after_opening(one.until_body(b"\n\n:\n:\n")).startswith(b"data: sleeping\n\n")
            assert two.wait(1)[0].event == "stream-open"
            took = server.seconds_to_stop()
            one.until_closing_retry()
            two.until_closing_retry()
        assert took < 5
        assert server.log.count("is not as ssekit knows it") == 1


def gunicorns_response(kind: type[Any], version: tuple[int, int], headers: Any) -> Any:
    request = SimpleNamespace(version=version, method="GET", should_close=lambda: version < (1, 1))
    made = kind(request, None, Config())
    made.start_response("200 OK", headers)
    return made


def head_of(response: Any) -> bytes:
    head = wsgi_servers.GunicornGreenlets({"resp": response, "self": WORKER}).abandon()
    assert response.headers_sent
    assert response.must_close
    return head


@pytest.mark.parametrize("version", [(1, 0), (1, 1)])
@pytest.mark.parametrize("headers", [[("X-A", "1")], [("X-A", "2")], [("X-A", "1"), ("X-B", "1")]])
def test_headers_are_taken_as_gunicorn_writes_them(version: tuple[int, int], headers: Any) -> None:
    written = bytearray()
    server = gunicorns_response(Response, version, headers)
    server.sock = SimpleNamespace(sendall=written.extend)
    server.send_headers()
    for _ in range(2):  # The second time they are known.
        head = head_of(gunicorns_response(Response, version, headers))
        assert undated(head) == undated(bytes(written))


def undated(head: bytes) -> list[bytes]:
    return [line for line in head.split(b"\r\n") if not line.startswith(b"Date: ")]


def test_headers_that_an_application_has_gunicorn_add_are_of_one_client_alone() -> None:
    class Numbered(Response):  # type: ignore[misc]
        numbers = itertools.count()

        def default_headers(self) -> list[str]:
            return [*super().default_headers(), f"X-Number: {next(self.numbers)}\r\n"]

    heads = [head_of(gunicorns_response(Numbered, (1, 1), [])) for _ in range(3)]
    assert [b"X-Number: %d" % number in head for number, head in enumerate(heads)] == [True] * 3
