"""Presence under real servers and browsers: reloads, restarts, deaths, and what is frozen."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from ssekit import Hub
from ssekit.testing import ReceivedStream, connect
from tests import leases
from tests.clients import Client
from tests.conftest import SHARED, URLS
from tests.ports import free_port
from tests.postgres_server import PostgresServer
from tests.proxies import nginx, open_folder
from tests.redis_server import RedisServer
from tests.servers import Server, gunicorn
from tests.waiting import until

Database = RedisServer | PostgresServer
APP = "tests.apps.present:app"
GONE = 15.0 / leases.FACTOR
"""Seconds within which the members of a killed process leave, with the leases of these tests."""

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_leases")]


on_each_log = pytest.mark.parametrize("url", SHARED, indirect=True)
"""For what depends on the log; the other tests have one of the first kind."""


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return URLS[getattr(request, "param", SHARED[0])](request, tmp_path)


@pytest.fixture
def hub(url: str) -> Iterator[Hub]:
    with Hub(url) as found:
        yield found


@contextmanager
def served(url: str, *options: str, **env: str) -> Iterator[Server]:
    with gunicorn(APP, *options, env={"HUB": url, **env}) as server:
        yield server


@contextmanager
def watching(hub: Hub) -> Iterator[ReceivedStream]:
    """See all joins and leaves of the room from another process than the server's."""
    with connect(hub.stream("room", presence=True), timeout=30) as viewer:
        assert next(viewer).event == "stream-open"
        yield viewer


def change(viewer: ReceivedStream) -> tuple[str, str]:
    """The next join or leave, and of whom."""
    event = next(viewer)
    return str(event.event), json.loads(str(event.data))["member"]


def nothing_more(hub: Hub, viewer: ReceivedStream) -> None:
    """No join or leave has come since the last one that was looked at."""
    hub.publish("room", "end")
    assert next(viewer).data == "end"


def nothing_for(seconds: float, viewer: ReceivedStream) -> None:
    """No join or leave comes for so long."""
    patience, viewer._timeout = viewer._timeout, seconds
    with suppress(TimeoutError):
        came = change(viewer)
        raise AssertionError(f"{came} came")
    viewer._timeout = patience


def enter(server: Server, member: str) -> Client:
    client = Client(f"{server.url}/?member={member}", version="1.1", timeout=20)
    client.until_body(b"stream-open")
    return client


def pid(server: Server) -> int:
    with Client(f"{server.url}/pid") as client:
        return int(client.until_end())


def openings(page: Page) -> int:
    return int(page.evaluate("seen.filter(([name]) => name == 'stream-open').length"))


def test_two_tabs_are_one_member_through_reloads_of_page_and_server(
    url: str, hub: Hub, browser: Browser
) -> None:
    with served(url, "--workers", "2") as server, watching(hub) as viewer:
        context = browser.new_context()
        first, second = context.new_page(), context.new_page()
        for page in (first, second):
            page.goto(f"{server.url}/page?member=7")
            page.wait_for_function("seen.length > 0")
        assert change(viewer) == ("stream-join", "7")
        first.reload()
        first.wait_for_function("seen.length > 0")
        workers = server.children()
        server.process.send_signal(signal.SIGHUP)
        until(lambda: not set(workers) & set(server.children()), 20, "new workers")
        until(lambda: openings(first) + openings(second) >= 2, 20, "the streams to come back")
        page_count = openings(first), openings(second)
        first.wait_for_function("seen.length > 0")
        first.close()
        # For longer than the leases of the workers that have ended may run.
        nothing_for(GONE, viewer)
        assert hub.members("room") == {"7": None}, page_count
        closed = time.monotonic()
        second.close()
        assert change(viewer) == ("stream-leave", "7")
        assert 4.5 < time.monotonic() - closed < 10
        nothing_more(hub, viewer)
        context.close()


@pytest.mark.parametrize("url", ["redis", "postgresql"], indirect=True)
def test_a_reload_of_two_workers_lets_nobody_leave(url: str, hub: Hub) -> None:
    with (
        served(url, "--workers", "2") as server,
        watching(hub) as viewer,
        ExitStack() as stack,
    ):
        clients = [(member, stack.enter_context(enter(server, member))) for member in "7789"]
        assert {change(viewer) for _ in "789"} == {("stream-join", member) for member in "789"}
        workers = set(server.children())
        server.process.send_signal(signal.SIGHUP)
        began = time.monotonic()
        is_over = False
        while not is_over:  # A worker that ends may take somebody in once more.
            are_new = not workers & set(server.children())
            ended = {client for _, client in clients if ends(client)}
            is_over = are_new and not ended
            clients = [
                (member, stack.enter_context(enter(server, member)) if client in ended else client)
                for member, client in clients
            ]
        # For longer than the leases of the workers that have ended may run.
        nothing_for(max(0.5, began + GONE - time.monotonic()), viewer)
        assert set(hub.members("room")) == {"7", "8", "9"}
        nothing_more(hub, viewer)


@pytest.fixture(params=["redis", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "postgresql":
        with PostgresServer() as postgres:
            yield postgres
    else:
        redis = RedisServer(tmp_path)
        yield redis
        redis.stop()


def test_a_restart_of_the_broker_lets_nobody_leave(database: Database) -> None:
    env = {"HUB": database.url, "GRACE": "0.5"}
    with Hub(database.url) as hub, gunicorn(APP, env=env) as server, watching(hub) as viewer:
        with enter(server, "7"):
            assert change(viewer) == ("stream-join", "7")
            database.kill()
            database.start()
            with enter(server, "8"):
                assert change(viewer) == ("stream-join", "8")
            assert change(viewer) == ("stream-leave", "8")
        assert change(viewer) == ("stream-leave", "7")
        nothing_more(hub, viewer)


def test_a_log_that_has_forgotten_everything_is_told_who_is_here(tmp_path: Path) -> None:
    redis = RedisServer(tmp_path)
    with Hub(redis.url) as hub, gunicorn(APP, env={"HUB": redis.url}) as server, enter(server, "7"):
        until(lambda: hub.members("room"))
        redis.command("FLUSHALL")
        hub.publish("other", "a new log")
        until(lambda: hub.members("room") == {"7": None}, 20, "the member to join again")
    redis.stop()


@on_each_log
def test_members_of_a_killed_worker_leave_once_but_for_those_that_came_back(
    url: str, hub: Hub
) -> None:
    with (
        served(url, "--workers", "2") as server,
        watching(hub) as viewer,
        ExitStack() as stack,
    ):
        killed = pid(server)
        clients = [stack.enter_context(enter(server, str(number))) for number in range(20)]
        joined = {change(viewer) for _ in range(20)}
        assert joined == {("stream-join", str(number)) for number in range(20)}
        os.kill(killed, signal.SIGKILL)
        began = time.monotonic()
        lost = {str(number) for number, client in enumerate(clients) if ends(client)}
        gone = {number for number in lost if int(number) >= 10}
        assert gone, "the killed worker had some of those that do not come back"
        for number in lost - gone:
            stack.enter_context(enter(server, number))
        leaves = [change(viewer) for _ in gone]
        assert time.monotonic() - began < GONE
        assert sorted(leaves) == sorted(("stream-leave", number) for number in gone)
        assert set(hub.members("room")) == {str(number) for number in range(20)} - gone
        nothing_for(1.0, viewer)
        nothing_more(hub, viewer)


def ends(client: Client) -> bool:
    """Read what has come, and tell whether the stream has ended."""
    while client.read(0.05):  # less than there is between two heartbeats
        pass
    return client.ended


def test_members_of_a_frozen_worker_leave_and_join_again_with_it(url: str, hub: Hub) -> None:
    with served(url) as server, watching(hub) as viewer, enter(server, "7"):
        assert change(viewer) == ("stream-join", "7")
        (worker,) = server.children()
        os.kill(worker, signal.SIGSTOP)
        assert change(viewer) == ("stream-leave", "7")
        os.kill(worker, signal.SIGCONT)
        assert change(viewer) == ("stream-join", "7")
        nothing_more(hub, viewer)


def test_a_frozen_browser_is_here_until_its_connection_ends(url: str, hub: Hub) -> None:
    with served(url, GRACE="0.2") as server, watching(hub) as viewer:
        program = "import sys, urllib.request as r; [print(l) for l in r.urlopen(sys.argv[1])]"
        browser = subprocess.Popen(
            [sys.executable, "-c", program, f"{server.url}/?member=7"], stdout=subprocess.DEVNULL
        )
        assert change(viewer) == ("stream-join", "7")
        browser.send_signal(signal.SIGSTOP)
        with enter(server, "8") as other:
            assert change(viewer) == ("stream-join", "8")
            other.until_body(b":\n" * 6)  # heartbeats, for longer than the grace
            nothing_more(hub, viewer)
        assert change(viewer) == ("stream-leave", "8")
        browser.kill()
        browser.wait()
        assert change(viewer) == ("stream-leave", "7")


def test_a_browser_behind_a_proxy_that_ignores_its_end_leaves_after_a_heartbeat(
    url: str, hub: Hub
) -> None:
    port = free_port()
    with (
        open_folder() as folder,
        served(url, GRACE="0.2") as server,
        watching(hub) as viewer,
    ):
        site = f"""server {{
            listen 127.0.0.1:{port};
            location / {{
                proxy_pass {server.url};
                proxy_http_version 1.1;
                proxy_ignore_client_abort on;
            }}
        }}"""
        with nginx(site, port, folder):
            with Client(f"http://127.0.0.1:{port}/?member=7", version="1.1") as client:
                client.until_body(b"stream-open")
                assert change(viewer) == ("stream-join", "7")
            # nginx writes the heartbeat to its client, and closes our connection then.
            assert change(viewer) == ("stream-leave", "7")
            nothing_more(hub, viewer)
