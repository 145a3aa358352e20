"""Nothing lost, nothing twice, everything in order: counted at real clients of real servers.

`bench.chaos` runs the same scenarios with more of everything.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from httpx_sse import connect_sse

from ssekit import Hub
from tests import proxies
from tests.browser import chromium
from tests.cable import cable
from tests.crowd import Crowd, Publishers, Viewer
from tests.ports import free_port
from tests.redis_server import StartRedis
from tests.servers import Server, gunicorn, running
from tests.waiting import until

pytestmark = pytest.mark.slow

APP = "tests.apps.news:app"
CHANNELS = ("news", "sport")


def viewers(server: Server, count: int, path: str = "/", **options: bool) -> Iterator[Viewer]:
    """Of every four one stays, and one watches two channels; the others are restless."""
    for n in range(count):
        channels = CHANNELS if n % 4 == 1 else [CHANNELS[n % 2]]
        yield Viewer(
            f"{server.url}{path}", channels, patience=None if n % 4 == 0 else 30, **options
        )


@pytest.mark.parametrize(
    ("fanout", "calamity"), [("on", "a worker dies"), ("on", "reload"), ("off", "a worker dies")]
)
def test_four_workers_on_one_file_and_four_kinds_of_publishers(
    tmp_path: Path, fanout: str, calamity: str
) -> None:
    url = f"sqlite:///{tmp_path}/hub.db"
    env = {"HUB": url, "HISTORY": "100000", "SSEKIT_FANOUT": fanout}
    with (
        gunicorn(APP, "--workers", "4", "--graceful-timeout", "5", env=env) as server,
        Crowd(viewers(server, 16)) as crowd,
    ):
        publishers = Publishers(url)
        publishers.process("news", "program", 250, 0.002)
        publishers.command_line("sport", "command line", 250)
        publishers.script("news", "script", 4)
        publishers.request(f"{server.url}/publish", "sport", "request", 100)
        until(lambda: crowd.arrived > 300, 30)
        if calamity == "reload":
            before = set(server.children())
            server.process.send_signal(signal.SIGHUP)
            until(lambda: not before & set(server.children()), 30, "the old workers to go")
        else:
            os.kill(server.children()[1], signal.SIGKILL)
        publishers.process("sport", "afterwards", 50)
        publishers.join()
        crowd.check(publishers)
        assert sum(viewer.connections for viewer in crowd.viewers) > 40


def test_redis_dies_and_comes_back_under_streams_and_publishers(start_redis: StartRedis) -> None:
    redis = start_redis()
    env = {"HUB": redis.url, "HISTORY": "100000"}
    with (
        gunicorn(APP, "--workers", "2", env=env) as server,
        Crowd(viewers(server, 16)) as crowd,
    ):
        publishers = Publishers(redis.url)
        publishers.process("news", "one", 250, 0.005)
        publishers.process("sport", "two", 250, 0.005)
        until(lambda: crowd.arrived > 300, 30)
        clients = redis.command("CLIENT", "LIST").decode()
        # One for each worker that has any of the viewers.
        assert len(re.findall(r"name=ssekit-follow", clients)) in (1, 2)
        redis.kill()
        until(lambda: publishers.refused > 3, 30, "publishers to notice")
        redis.start()
        publishers.join()
        crowd.check(publishers)
        assert len(publishers.stored) + len(publishers.uncertain) + publishers.refused == 500
        assert server.log.count("the hub's broker is away") in (1, 2)  # once in each


def test_viewers_that_stop_reading_for_a_while(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/hub.db"
    with gunicorn(APP, env={"HUB": url, "HISTORY": "100000"}) as server:
        watching = [Viewer(server.url, ["news"], naps=[0.0, 0.15][n % 2]) for n in range(4)]
        with Crowd(watching) as crowd:
            publishers = Publishers(url)
            publishers.process("news", "program", 250, size=8000)
            publishers.join()
            crowd.check(publishers)


@contextmanager
def waitress(target: str, env: dict[str, str]) -> Iterator[Server]:
    port = free_port()
    command = [sys.executable, "-m", "waitress", "--threads=24", f"--listen=127.0.0.1:{port}"]
    with running([*command, target], port, env=env) as server:
        yield server


@contextmanager
def gthread(target: str, env: dict[str, str]) -> Iterator[Server]:
    options = ("--workers", "2", "--threads", "24", "--graceful-timeout", "3")
    with gunicorn(target, *options, worker="gthread", env=env) as server:
        yield server


@contextmanager
def gevent(target: str, env: dict[str, str]) -> Iterator[Server]:
    with gunicorn(target, env=env) as server:
        yield server


@pytest.mark.parametrize(
    ("serve", "path"),
    [
        (gthread, "/"),
        (waitress, "/"),
        (gevent, "/flask/"),
        (waitress, "/flask/"),
        (gevent, "/passing"),
    ],
)
def test_other_servers_and_wrappings(tmp_path: Path, serve: object, path: str) -> None:
    url = f"sqlite:///{tmp_path}/hub.db"
    with serve(APP, {"HUB": url, "HISTORY": "100000"}) as server:  # type: ignore[operator]
        # A Flask view of the application has one channel.
        watching = [
            Viewer(f"{server.url}{path}", ["news"], patience=[None, 20][n % 2]) for n in range(6)
        ]
        with Crowd(watching) as crowd:
            publishers = Publishers(url)
            publishers.process("news", "program", 150, 0.002)
            publishers.process("other", "not for them", 150, 0.002)
            publishers.join()
            crowd.check(publishers)
            assert crowd.arrived == 6 * 150


def test_cgi_scripts_whose_life_ends_again_and_again() -> None:
    if sys.version_info >= (3, 15):
        pytest.skip("http.server --cgi was taken out of Python 3.15")
    with proxies.open_folder() as folder:
        url = f"sqlite:///{folder}/hub.db"
        script = proxies.scripts(folder) / "news"
        script.write_text(
            f"#!{proxies.python()}\n"
            "from ssekit import Hub\n"
            "from ssekit.cgi import run\n"
            f"run(Hub({url!r}, history=100_000).stream('news'), max_seconds=1)\n"
        )
        script.chmod(0o755)
        with proxies.python_cgi_server(folder) as server:
            # This host passes no Last-Event-ID on, so the id travels in the query.
            address = f"{server.url}/cgi-bin/news"
            with Crowd(Viewer(address, ["news"], by_query=True) for _ in range(2)) as crowd:
                publishers = Publishers(url)
                publishers.process("news", "program", 150, 0.02)
                publishers.join()
                crowd.check(publishers)
                assert all(viewer.connections > 2 for viewer in crowd.viewers)


def test_the_app_loaded_before_the_fork_serves_from_the_first_request(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/hub.db"
    env = {"HUB": url, "HISTORY": "100000"}
    with (
        gunicorn(APP, "--workers", "2", "--preload", env=env) as server,
        Crowd(viewers(server, 12)) as crowd,
    ):
        publishers = Publishers(url)
        publishers.process("news", "program", 100)
        publishers.request(f"{server.url}/publish", "sport", "request", 50)
        publishers.join()
        crowd.check(publishers)


def test_httpx_sse_that_lost_its_connection_before_any_event_misses_nothing(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path}/hub.db"
    hub = Hub(url)
    hub.publish("news", "before")
    with gunicorn(APP, env={"HUB": url}) as server, httpx.Client(timeout=10) as client:
        with connect_sse(client, "GET", server.url) as source:
            joined = next(source.iter_sse()).id
        sent = [hub.publish("news", f"number {n}") for n in range(3)]
        with connect_sse(client, "GET", server.url, headers={"Last-Event-ID": joined}) as source:
            arriving = source.iter_sse()
            assert [next(arriving).data for _ in sent] == [event.data for event in sent]
    hub.close()


@pytest.mark.browser
def test_a_browser_that_lost_its_connection_before_any_event_misses_nothing(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path}/hub.db"
    hub = Hub(url)
    hub.publish("news", "before")
    with (
        gunicorn(APP, env={"HUB": url}) as server,
        cable(server.port) as line,
        chromium() as browser,
    ):
        page = browser.new_page()
        page.route("**/", lambda route: route.fulfill(content_type="text/html", body="<p>"))
        page.goto(f"{line.url}/")
        page.unroute_all()
        page.evaluate("""() => {
            window.seen = []; window.opened = 0;
            const source = new EventSource("/?channel=news");
            source.addEventListener("stream-open", () => opened++);
            source.addEventListener("stream-reset", () => seen.push("reset"));
            source.onmessage = event => seen.push(event.data);
        }""")
        page.wait_for_function("opened === 1")
        line.cut()
        for n in range(3):
            hub.publish("news", f"number {n}")
        line.mend()
        page.wait_for_function("seen.length >= 3", timeout=20_000)
        hub.publish("news", "live")
        page.wait_for_function("seen.length >= 4")
        assert page.evaluate("seen") == ["number 0", "number 1", "number 2", "live"]
        assert page.evaluate("opened") == 1
    hub.close()
