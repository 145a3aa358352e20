"""What ssekit knows of servers, and that a server which has changed is served by PEP 3333 alone."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

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
