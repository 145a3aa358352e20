"""examples/django_comments: its own tests on each database, and its pages over a real server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, OpenerDirector, build_opener

import pytest

from tests.browser import chromium
from tests.clients import Client
from tests.postgres_server import PostgresServer
from tests.servers import ROOT, Server, gunicorn

pytestmark = pytest.mark.ci

PROJECT = ROOT / "examples" / "django_comments"
USERS = ROOT / "tests" / "apps" / "comment_users.json"


@pytest.fixture(params=["sqlite", "postgresql"])
def environ(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The settings of the project, with an empty database."""
    found = {"DATA": str(tmp_path), "SECRET_KEY": "for a test, and long enough for it"}
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        found["DATABASE_URL"] = server.new_database()
        found["SSEKIT_URL"] = f"{found['DATABASE_URL']}?stream=hub"  # its user is named ssekit
    return found


def manage(environ: dict[str, str], *command: str) -> str:
    done = subprocess.run(
        [sys.executable, "manage.py", *command],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_its_own_tests_pass_and_its_migrations_are_there(environ: dict[str, str]) -> None:
    assert "Ran 5 tests" in manage(environ, "test")
    assert "No changes" in manage(environ, "makemigrations", "--check")


def posted(browser: OpenerDirector, jar: CookieJar, url: str, **fields: str) -> str:
    """Post a form as a browser does, with the token of Django's protection."""
    browser.open(url.removesuffix("/comments"), timeout=20).close()
    token = next(cookie.value for cookie in jar if cookie.name == "csrftoken")
    data = urlencode({**fields, "csrfmiddlewaretoken": token}).encode()
    with browser.open(url, data, timeout=20) as answer:
        return str(answer.read().decode())


@contextmanager
def serving(environ: dict[str, str]) -> Iterator[Server]:
    """The project with one user and one article of hers, on two workers."""
    manage(environ, "migrate")
    manage(environ, "loaddata", str(USERS))
    app = "django.core.wsgi:get_wsgi_application()"
    env = {**environ, "DJANGO_SETTINGS_MODULE": "settings"}
    with gunicorn(app, "--workers", "2", "--chdir", str(PROJECT), env=env) as server:
        yield server


def signed_in(server: Server) -> tuple[OpenerDirector, CookieJar]:
    jar = CookieJar()
    browser = build_opener(HTTPCookieProcessor(jar))
    url = f"{server.url}/admin/login/?next=/"
    posted(browser, jar, url, username="ann", password="for a test")
    return browser, jar


def test_a_reader_sees_a_comment_and_the_author_is_notified(environ: dict[str, str]) -> None:
    with serving(environ) as server:
        browser, jar = signed_in(server)
        with browser.open(f"{server.url}/", timeout=20) as answer:
            found = re.search(r"last_event_id=([\w-]+)", answer.read().decode())
        assert found is not None
        session = "; ".join(f"{cookie.name}={cookie.value}" for cookie in jar)
        reading = f"{server.url}/events?channel=article.1&last_event_id={found[1]}"
        notified = f"{server.url}/events?channel=user.1&last_event_id={found[1]}"
        with (
            Client(reading) as reader,
            Client(notified, headers={"Cookie": session}) as author,
            ExitStack() as stack,
        ):
            tabs: list[Client] = []
            for tab in range(2):
                tabs.append(stack.enter_context(Client(reading, headers={"Cookie": session})))
                tabs[tab].until_body(b"\n")
            (join,) = reader.wait(1)
            assert join.event == "stream-join"
            assert json.loads(join.data)["value"] == {"name": "ann"}
            page = posted(browser, jar, f"{server.url}/articles/1/comments", text="It <works>")
            assert '<li id="comment-1">ann: It &lt;works&gt;</li>' in page
            assert '<li id="reader-1">ann</li>' in page
            # Two tabs are one member: nobody else joins, here or in the author's own channel.
            for client, name in ((reader, "comment"), (author, "notification")):
                event = client.wait(2)[1]
                assert event.event == name
                assert json.loads(event.data)["text"] == "It <works>"
        with Client(notified) as stranger:
            assert stranger.status == 403


@pytest.mark.browser
@pytest.mark.parametrize("environ", ["sqlite"], indirect=True)
def test_the_page_shows_a_comment_in_chromium(environ: dict[str, str]) -> None:
    with serving(environ) as server, chromium() as found:
        browser, jar = signed_in(server)
        page = found.new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(f"{server.url}/articles/1")
        # What is committed before the stream is open comes with it: nothing to wait for.
        posted(browser, jar, f"{server.url}/articles/1/comments", text="It <works>")
        page.wait_for_selector("#comment-1", timeout=20_000)
        assert page.inner_text("#comments") == "ann: It <works>"
        session = "; ".join(f"{cookie.name}={cookie.value}" for cookie in jar)
        with Client(f"{server.url}/events?channel=article.1", headers={"Cookie": session}):
            page.wait_for_selector("#reader-1", timeout=20_000)
            assert page.inner_text("#readers") == "ann"
        assert problems == []
