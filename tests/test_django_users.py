"""Django's users: what they may read, and how their streams end when they may read it no more."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest

from tests.clients import Client
from tests.servers import ROOT, Server, gunicorn
from tests.test_django import APP, manage

SETTINGS = "tests.apps.django_site.settings"


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    folder = tmp_path_factory.mktemp("site")
    found = {
        "APPS": "ssekit.django",
        "FILE": f"{folder}/site.sqlite",
        "HUB": f"sqlite:///{folder}/hub.db",
    }
    manage("migrate", **found)
    return found


@pytest.fixture(scope="module")
def server(environ: Mapping[str, str]) -> Iterator[Server]:
    with gunicorn(APP, "--workers", "2", env=environ) as found:
        yield found


def ask(server: Server, path: str, cookie: str = "", **query: str) -> tuple[str, str]:
    """Return the body, and the session's cookie."""
    url = f"{server.url}/users/{path}?{urlencode(query)}"
    with urlopen(Request(url, headers={"Cookie": cookie}), timeout=20) as answer:
        cookies = answer.headers.get_all("Set-Cookie", [])
        session = [one.partition(";")[0] for one in cookies if one.startswith("sessionid=")]
        return answer.read().decode(), "".join(session)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


def stream(server: Server, cookie: str, stack: ExitStack) -> Client:
    client = Client(f"{server.url}/users/events", headers={"Cookie": cookie})
    stack.enter_context(client)
    assert client.wait(1, 20)[0].event == "stream-open"
    return client


def test_a_user_reads_their_own_channel(server: Server, stack: ExitStack) -> None:
    ann, bob = (ask(server, f"sign-in/{name}")[1] for name in ("ann", "bob"))
    streams = [stream(server, cookie, stack) for cookie in (ann, bob)]
    for name in ("ann", "bob"):
        ask(server, f"say/{name}", data=f"for {name}")
    for client, name in zip(streams, ("ann", "bob"), strict=True):
        assert client.wait(2, 20)[1].data == f"for {name}"


def test_somebody_who_is_not_signed_in_is_401(server: Server) -> None:
    with Client(f"{server.url}/users/events") as client:
        assert client.status == 401


def test_permission_denied_is_403(server: Server) -> None:
    with Client(f"{server.url}/users/events?deny") as client:
        assert client.status == 403


def test_a_database_at_its_limit_tells_the_client_to_come_back(server: Server) -> None:
    headers = {"Accept": "text/event-stream"}
    with Client(f"{server.url}/users/events?fail", headers=headers) as client:
        assert client.status == 200
        assert client.until_end(20).startswith(b"retry: ")


@pytest.mark.parametrize("what", ["deactivate", "password", "delete", "sessions"])
def test_a_user_who_may_read_no_more_gets_nothing_more(
    what: str, server: Server, stack: ExitStack
) -> None:
    name = f"user-{what}"
    cookie, other = ask(server, f"sign-in/{name}")[1], ask(server, "sign-in/other")[1]
    clients = [stream(server, cookie, stack) for _ in range(6)]  # on both workers
    bystander = None if what == "sessions" else stream(server, other, stack)
    ask(server, f"change/{name}/{what}")
    ask(server, f"say/{name}", data="secret")
    for client in clients:
        body = client.until_end(5)
        assert b"secret" not in body
    if bystander is not None:
        ask(server, "say/other", data="still there")
        assert bystander.wait(2, 20)[1].data == "still there"


def test_a_change_that_ends_nothing_ends_nothing(server: Server, stack: ExitStack) -> None:
    cookie = ask(server, "sign-in/cat")[1]
    client = stream(server, cookie, stack)
    ask(server, "change/cat/rename")
    ask(server, "say/cat", data="still there")
    assert client.wait(2, 20)[1].data == "still there"


def test_signing_out_ends_the_streams_of_that_session_alone(
    server: Server, stack: ExitStack
) -> None:
    here, there = (ask(server, "sign-in/dan")[1] for _ in range(2))
    ending, staying = stream(server, here, stack), stream(server, there, stack)
    ask(server, "sign-out", here)
    ask(server, "say/dan", data="secret")
    assert b"secret" not in ending.until_end(5)
    assert staying.wait(2, 20)[1].data == "secret"
    with Client(f"{server.url}/users/events", headers={"Cookie": here}) as client:
        assert client.status == 401


def test_what_is_rolled_back_is_not_published(server: Server, stack: ExitStack) -> None:
    cookie = ask(server, "sign-in/eve")[1]
    client = stream(server, cookie, stack)
    ask(server, "say/eve", data="undone", rollback="")
    ask(server, "say/eve", data="done")
    assert client.wait(2, 20)[1].data == "done"


def test_an_event_that_cannot_be_sent_undoes_the_transaction(server: Server) -> None:
    body, _ = ask(server, "say/eve", data="done", event="two\nlines")
    assert body == "InvalidEvent, and nothing was committed"


def test_a_page_renders_the_logs_end(server: Server) -> None:
    assert ask(server, "cursor")[0] == ask(server, "position")[0]


def test_the_script_tag_carries_the_nonce_of_the_policy(environ: Mapping[str, str]) -> None:
    with gunicorn(APP, env={**environ, "FILES": "1"}) as server:
        assert ask(server, "script", nonce='a"b')[0].count(' nonce="a&quot;b"') == 2
        assert "nonce" not in ask(server, "script")[0]


def test_a_script_tag_without_an_address_for_the_file_says_what_to_add(server: Server) -> None:
    assert 'include("ssekit.django.urls")' in ask(server, "script")[0]


def django(*command: str, check: bool = True, cwd: Path = ROOT, **environ: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "django", *command, f"--settings={SETTINGS}"],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        check=check,
        timeout=50,
    )
    return done.stdout + done.stderr


def test_the_command_prints_events(environ: Mapping[str, str]) -> None:
    from ssekit import Hub

    with Hub(environ["HUB"]) as hub:
        before = hub.position()
        hub.publish("job", {"step": 1})
        command = ["ssekit_listen", "job", "--count", "1", "--last-event-id", before]
        assert '"data": "{\\"step\\":1}"' in django(*command, **environ)
    assert "CommandError: a channel" in django("ssekit_listen", "", check=False, **environ)


MIDDLEWARE = "tests.apps.django_site.middleware"


@pytest.mark.parametrize(
    ("settings", "warning"),
    [
        ({"HUB": ""}, "ssekit.W001"),
        ({"HUB": "nothing:"}, "ssekit.W001"),
        ({"HUB": "memory:"}, "ssekit.W002"),
        ({"HUB": "memory:", "DEBUG": "1", "GUNICORN_CMD_ARGS": "-w 2"}, "ssekit.W002"),
        ({"ASGI": "asgi.application"}, "ssekit.W003"),
        ({"SESSION_ENGINE": "django.contrib.sessions.backends.signed_cookies"}, "ssekit.W004"),
        ({"MIDDLEWARE": f"{MIDDLEWARE}.gathering"}, "ssekit.W005"),
        ({"GUNICORN_CMD_ARGS": "-k gevent --preload"}, "ssekit.W006"),
        ({"SECRET_KEY": ""}, "ssekit.W007"),
    ],
)
def test_the_checks_say_what_would_not_work(
    environ: Mapping[str, str], settings: Mapping[str, str], warning: str
) -> None:
    found = django("check", "--deploy", **{**environ, **settings})
    assert re.findall(r"ssekit\.W\d+", found) == [warning]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"HUB": "memory:", "DEBUG": "1"},
        {"GUNICORN_CMD_ARGS": "-k gthread --preload"},
        {
            "MIDDLEWARE": f"{MIDDLEWARE}.counting,{MIDDLEWARE}.asking,"
            "django.middleware.gzip.GZipMiddleware,django.middleware.locale.LocaleMiddleware"
        },
    ],
)
def test_the_checks_are_silent_about_what_works(
    environ: Mapping[str, str], settings: Mapping[str, str]
) -> None:
    assert "ssekit.W" not in django("check", "--deploy", **{**environ, **settings})


def test_a_server_that_preloads_is_seen_in_its_file_of_settings(
    environ: Mapping[str, str], tmp_path: Path
) -> None:
    (tmp_path / "gunicorn.conf.py").write_text('preload_app = True\nbind = f"{1}"\n')
    assert "ssekit.W006" in django("check", cwd=tmp_path, **environ)


def test_a_wrong_setting_names_the_right_ones(environ: Mapping[str, str], tmp_path: Path) -> None:
    assert "it has CAPACITY" in django("check", **{**environ, "HUB_OPTION": "HISTROY"})
