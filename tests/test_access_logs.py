"""What our log lines say of clients: no ticket, no token, and one line whatever a name is."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest

from ssekit import Hub
from ssekit.access import Grant
from ssekit.testing import connect
from tests.apps.ticketed import SECRET, tickets
from tests.clients import Client
from tests.servers import Server, gunicorn
from tests.waiting import until

FORGED = "ann\npath=/forged seconds=1 ended='x'"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with gunicorn("tests.apps.ticketed:app") as running:
        yield running


def credentials() -> tuple[str, str]:
    claims = {"sub": "7", "channels": ["news"], "exp": time.time() + 60, "iat": time.time()}
    return tickets.issue("news", subject="7"), jwt.encode(claims, SECRET, "HS256")


def test_tickets_and_tokens_are_in_no_line_whatever_happens(server: Server) -> None:
    ticket, token = credentials()
    headers = {"Authorization": f"Bearer {token}"}
    with Client(f"{server.url}/?ticket={ticket}") as stream:
        stream.until_body(b"stream-open")
        for path in ("/token?token=", "/broken?token=", "/broken?ticket="):
            Client(f"{server.url}{path}{token}").close()
        Client(f"{server.url}/?ticket={ticket}", headers={"Accept": "text/event-stream"}).close()
        until(lambda: "max_streams" in server.log)
    until(lambda: "ended=" in server.log)
    for path in ("/token", f"/token?token={token}"):
        with Client(server.url + path, headers=headers) as stream:
            stream.until_body(b"stream-open")
    for path in (f"/?ticket={ticket}x", f"/token?token={token}x", "/token"):
        with Client(server.url + path, headers={"Authorization": f"Bearer {token}x"}) as refused:
            assert refused.status in (401, 403)
    with Client(f"{server.url}/broken?ticket={ticket}&token={token}", headers=headers) as failed:
        assert failed.status == 503
    until(lambda: "authorize of" in server.log and server.log.count("ended=") >= 3)
    secret_parts = [*ticket.split(".")[1:], *token.split(".")[1:], SECRET]
    for part in secret_parts:
        assert part not in server.log


@pytest.mark.parametrize("path", ["/a%0aINFO:forged", "/a%1b[2J", "/%00", "/%c2%85", "/%e2%80%a8"])
def test_a_path_cannot_forge_a_line(server: Server, path: str) -> None:
    ticket, _ = credentials()
    before = server.log.count("ended=")
    with Client(f"{server.url}{path}?ticket={ticket}") as stream:
        stream.until_body(b"stream-open")
    until(lambda: server.log.count("ended=") > before)
    assert not re.search("^INFO:forged", server.log, re.MULTILINE)
    assert not re.search("[\x00\x1b\x85\u2028]", server.log)


@pytest.mark.parametrize("field", ["subject", "session", "member"])
@pytest.mark.parametrize("name", [FORGED, "a\x1b[2J", "a\0", "a\x85", "\ud800", "a\r"])
def test_a_name_with_control_characters_is_refused(field: str, name: str) -> None:
    options: dict[str, Any] = {field: name}
    with pytest.raises(ValueError, match="control characters"):
        Grant(["news"], **options)
    with pytest.raises(ValueError, match="control characters"):
        tickets.issue("news", **options)
    with Hub() as hub:
        if field != "member":
            with pytest.raises(ValueError, match="control characters"):
                hub.revoke(**options)
        with pytest.raises(ValueError, match="control characters"):
            hub.disconnect(channel=name)
        with pytest.raises(ValueError, match="control characters"):
            hub.publish(name, "x")


def test_a_subject_is_one_field_and_channels_members_and_data_are_in_no_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    subject = "ann ended='forged' path=/é"
    grant = Grant(
        ["c-secret"], subject=subject, session="n-secret", member=("m-secret", "v-secret")
    )
    with Hub() as hub, connect(hub.endpoint(lambda request: grant), timeout=5) as stream:
        next(stream)
        until(lambda: hub.members("c-secret"))
        hub.publish("c-secret", "d-secret")
        next(stream)
        hub.revoke(subject=subject)
        stream.read_all()
    until(lambda: "ended='revoked'" in caplog.text)
    assert "secret" not in caplog.text
    assert r"subject=ann\x20ended='forged'\x20path=/\xe9" in caplog.text
