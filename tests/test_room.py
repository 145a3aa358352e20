"""The demo's room: who may speak in it, what it takes, and that no address is asked for it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import Client as Visitor
from werkzeug.test import TestResponse

from ssekit.demo.app import Application, create
from ssekit.demo.room import LIFETIME, Allowance, Room, link_key
from ssekit.demo.secret import find_secret
from ssekit.demo.settings import room_of
from ssekit.hub import Hub
from ssekit.testing import connect
from tests.clients import Client
from tests.ports import free_port
from tests.proxies import nginx, open_folder
from tests.servers import gunicorn
from tests.test_app import status_of
from tests.waiting import until

SECRET = b"for tests"
KEY = link_key(SECRET)
# What a browser sends with a request of the page itself.
FROM_PAGE = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
MESSAGE = {"name": "Ada", "text": "hello"}


@pytest.fixture
def app() -> Iterator[Application]:
    made = create(room="open", secret=SECRET)
    yield made
    made.hub.close()


@pytest.fixture
def visitor(app: Application) -> Visitor:
    return Visitor(app)


def token_in(page: str) -> str:
    found = re.search(r'<meta name="room-token" content="([^"]*)">', page)
    assert found
    return found[1]


def token_of(visitor: Visitor, path: str = "/") -> str:
    return token_in(visitor.get(path).text)


def say(visitor: Visitor, message: Any = MESSAGE, **request: Any) -> TestResponse:
    headers = {**FROM_PAGE, "X-Room-Token": token_of(visitor), **request.pop("headers", {})}
    return visitor.post("/room", **{"json": message, "headers": headers, **request})


def error(answer: TestResponse) -> str:
    return str(answer.json["error"])  # type: ignore[index]


def test_the_room_takes_a_message_from_its_page(app: Application, visitor: Visitor) -> None:
    with connect(app, "/events?channel=room") as stream:
        assert next(stream).event == "stream-open"
        answer = say(visitor, {**MESSAGE, "text": " <b>hi</b> ", "time": 0, "more": 1})
        assert answer.status_code == 201
        event = next(stream)
        message = json.loads(event.data)
        assert answer.json == {"id": event.id}
        assert message.pop("time") > 1e12
        assert message == {"name": "Ada", "text": "<b>hi</b>"}


def test_who_may_speak_is_here_by_their_name_and_nobody_else(
    app: Application, visitor: Visitor
) -> None:
    headers = {"X-Room-Token": token_of(visitor), "X-Room-Visitor": "a secret of the browser"}
    with connect(app, "/room/events?name=Eve") as reader:  # has no token
        assert next(reader).event == "stream-open"
        with connect(app, "/room/events?name=Ada", headers=headers):
            joined = next(reader)
            assert joined.event == "stream-join"
            said = json.loads(joined.data)
            assert said["value"] == {"name": "Ada"}
            assert "secret" not in said["member"]
        # The same browser by another name is the same member, and so is its other tab.
        with connect(app, "/room/events?name=Grace", headers=headers):
            renamed = json.loads(next(reader).data)
            assert (renamed["member"], renamed["value"]) == (said["member"], {"name": "Grace"})
        assert list(app.hub.members("room")) == [said["member"]]
    with connect(app, f"/room/events?name={'x' * 33}", headers=headers) as refused:
        assert refused.status == 400


@pytest.mark.parametrize(
    ("mode", "path", "admitted"),
    [
        ("off", "/", False),
        ("off", f"/?key={KEY}", False),
        ("open", "/", True),
        ("link", "/", False),
        ("link", "/?key=", False),
        ("link", f"/?key={KEY[:-1]}", False),
        ("link", "/?key=%C3%A9", False),
        ("link", f"/?key={KEY}", True),
    ],
)
def test_the_mode_says_which_page_may_speak(mode: str, path: str, admitted: bool) -> None:
    visitor = Visitor(create(room=mode, secret=SECRET))
    token = token_of(visitor, path)
    assert bool(token) == admitted
    headers = {**FROM_PAGE, "X-Room-Token": token}
    status = visitor.get("/status", headers=headers).json
    assert status["room"] == admitted  # type: ignore[index]
    answer = visitor.post("/room", json=MESSAGE, headers=headers)
    assert answer.status_code == (201 if admitted else 403)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "192.0.2.1", ""])
def test_an_address_admits_nobody_and_shuts_nobody_out(visitor: Visitor, address: str) -> None:
    overrides = {"REMOTE_ADDR": address}
    answer = visitor.post("/room", json=MESSAGE, headers=FROM_PAGE, environ_overrides=overrides)
    assert answer.status_code == 403
    assert say(visitor, environ_overrides=overrides).status_code == 201


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {**FROM_PAGE, "Sec-Fetch-Site": "cross-site"},
        {**FROM_PAGE, "Sec-Fetch-Site": "same-site"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {},
    ],
)
def test_a_token_is_no_use_on_another_site(visitor: Visitor, headers: dict[str, str]) -> None:
    headers = {"X-Room-Token": token_of(visitor), **headers}
    answer = visitor.post("/room", json=MESSAGE, headers=headers)
    assert answer.status_code == 403
    assert "own page only" in error(answer)


def test_a_token_holds_for_a_day_and_cannot_be_changed() -> None:
    now = [1_000_000.0]
    hub = Hub()
    room = Room(hub, "open", SECRET, clock=lambda: now[0])

    class Asked:
        def __init__(self, token: str) -> None:
            self.headers = {"X-Room-Token": token}

    def admitted(token: str) -> bool:
        return room.admits(Asked(token))  # type: ignore[arg-type]

    token = room.token("")
    until, _, signature = token.partition(".")
    assert admitted(token)
    for wrong in ("", ".", until, f".{signature}", f"{int(until) + 1}.{signature}", f"{token}0"):
        assert not admitted(wrong)
    for secret in (b"another", b"For tests"):
        assert not admitted(Room(hub, "open", secret, clock=lambda: now[0]).token(""))
    assert not admitted(f"{until}.{link_key(SECRET)}")
    now[0] += LIFETIME
    assert admitted(token)
    now[0] += 3600
    assert not admitted(token)


def test_the_page_keeps_its_etag_while_its_token_does(visitor: Visitor) -> None:
    answer = visitor.get("/")
    assert "private" in answer.headers["Cache-Control"]
    again = visitor.get("/", headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304 or token_in(again.text) != token_in(answer.text)


def test_the_room_is_closed_unless_said_otherwise() -> None:
    visitor = Visitor(create())
    assert token_of(visitor) == ""
    answer = say(visitor)
    assert (answer.status_code, "SSEKIT_ROOM" in error(answer)) == (403, True)
    with pytest.raises(ValueError, match="off, link, open"):
        create(room="local", secret=SECRET)
    with pytest.raises(ValueError, match="needs a secret"):
        create(room="open")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"message": {"name": "Ada"}}, 422),
        ({"message": {"name": "", "text": "x"}}, 422),
        ({"message": {"name": "Ada", "text": "  "}}, 422),
        ({"message": {"name": "Ada", "text": 5}}, 422),
        ({"message": {"name": "x" * 33, "text": "x"}}, 422),
        ({"message": {"name": "Ada", "text": "x" * 501}}, 422),
        ({"message": {"name": "Ada", "text": "\ud800"}}, 422),
        ({"message": {"name": "Ada", "text": "x" * 5000}}, 413),
        ({"json": None, "data": MESSAGE}, 415),
        ({"json": None, "data": b"{", "content_type": "application/json"}, 400),
    ],
)
def test_the_room_refuses_what_is_not_a_message(
    visitor: Visitor, request_: dict[str, Any], status: int
) -> None:
    answer = say(visitor, **request_)
    assert answer.status_code == status
    assert error(answer)


def test_the_room_takes_a_few_messages_at_a_time(visitor: Visitor) -> None:
    answers = [say(visitor) for _ in range(30)]
    statuses = [answer.status_code for answer in answers]
    assert statuses[:10] == [201] * 10
    assert 429 in statuses
    assert int(answers[statuses.index(429)].headers["Retry-After"]) >= 1


def test_an_allowance_fills_up_again_and_is_each_address_own() -> None:
    now = [0.0]
    allowance = Allowance(2, 3, lambda: now[0])
    assert [allowance.take("a") for _ in range(3)] == [0, 0, 0]
    assert allowance.take("a") == pytest.approx(0.5)
    assert allowance.take("b") == 0
    now[0] += 0.5
    assert allowance.take("a") == 0
    assert allowance.take("a") > 0
    now[0] += 60
    assert [allowance.take("a") for _ in range(4)] == [0, 0, 0, pytest.approx(0.5)]


# The secret.


def test_the_secret_is_made_once_for_this_user_alone(tmp_path: Path) -> None:
    secret = find_secret(tmp_path)
    assert len(secret) == 32
    assert find_secret(tmp_path) == secret
    assert os.listdir(tmp_path) == ["secret"]
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("harm", ["open to others", "empty", "a link"])
def test_a_secret_that_others_may_know_is_refused(tmp_path: Path, harm: str) -> None:
    find_secret(tmp_path)
    path = tmp_path / "secret"
    if harm == "open to others":
        path.chmod(0o644)
    elif harm == "empty":
        path.write_bytes(b"")
    else:
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"delete it|symbolic"):
        find_secret(tmp_path)


def test_where_no_secret_can_be_kept_the_room_is_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert room_of({}) == ("off", b"")
    assert "SSEKIT_SECRET" in caplog.text
    assert room_of({"SSEKIT_SECRET": "s"}) == ("link", b"s")
    assert room_of({"SSEKIT_ROOM": "off", "SSEKIT_SECRET": "s"}) == ("off", b"")


# Servers.

BARE = "server {{ listen {port}; location / {{ proxy_pass http://127.0.0.1:{upstream}; }} }}\n"


def test_behind_a_bare_proxy_the_room_is_not_open_to_everybody(tmp_path: Path) -> None:
    """`proxy_pass` and nothing else: all requests come from 127.0.0.1, for the host 127.0.0.1."""
    env = {"SSEKIT_URL": f"sqlite:///{tmp_path}/hub.db", "XDG_STATE_HOME": str(tmp_path)}
    port = free_port()
    with (
        gunicorn("wsgi:app", env=env) as server,
        open_folder() as folder,
        nginx(BARE.format(port=port, upstream=server.port), port, folder) as proxy,
    ):
        with Client(f"{proxy.url}/") as page:
            assert page.status == 200
            token = token_in(page.until_end().decode())
        assert token == ""
        origin = server.url  # what the server takes for its own name
        for header in (FROM_PAGE, {"Origin": origin, "Sec-Fetch-Site": "same-origin"}):
            assert posted(proxy.url, {**header, "X-Room-Token": token}) == 403


def posted(url: str, headers: dict[str, str]) -> int:
    headers = {**headers, "Content-Type": "application/json"}
    body = json.dumps(MESSAGE).encode()
    with Client(f"{url}/room", method="POST", headers=headers, body=body) as client:
        return client.status


def test_a_token_of_one_worker_is_good_for_all(tmp_path: Path) -> None:
    env = {"SSEKIT_URL": f"sqlite:///{tmp_path}/hub.db", "XDG_STATE_HOME": str(tmp_path)}
    env["SSEKIT_ROOM"] = "open"
    with gunicorn("wsgi:app", "--workers", "3", env=env) as server:
        until(lambda: status_of(server.url)["workers"] == 3, what="three workers")
        tokens = set()
        for _ in range(10):
            with Client(f"{server.url}/", headers={"Connection": "close"}) as page:
                tokens.add(token_in(page.until_end().decode()))
        headers = {"Origin": server.url, "Connection": "close"}
        for token in tokens:
            for _ in range(8):
                assert posted(server.url, {**headers, "X-Room-Token": token}) == 201
