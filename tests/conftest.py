"""What all test files share: signals and limits of the process, a server of each database."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from hypothesis import settings

from ssekit import Hub
from ssekit.brokers import Broker, Retention, connect
from tests.leases import quicken
from tests.logs import Open
from tests.postgres_server import STATEMENTS, PostgresServer
from tests.redis_server import RedisServer, StartRedis

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# A shell starts background jobs with SIGINT and SIGQUIT ignored, and every program that we start
# would inherit that: it could not be interrupted.  The test processes of xdist are started after
# this and inherit what is set here.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)


LONG = {"browser", "ci", "slow"}
"""Marks of the files that take long."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a browser by the fixture that starts it, and begin with the long files."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")
    # Else one process is busy with them at the end while the others have nothing left to do.
    items.sort(key=lambda item: LONG.isdisjoint(mark.name for mark in item.iter_markers()))


URLS: dict[str, Callable[[pytest.FixtureRequest, Path], str]] = {
    "memory": lambda request, folder: "memory:",
    "sqlite": lambda request, folder: f"sqlite:///{folder}/log.db",
    "postgresql": lambda request, folder: (
        f"{request.getfixturevalue('postgres_server').url}?stream=test_{uuid4().hex[:8]}"
    ),
    "redis": lambda request, folder: (
        f"{request.getfixturevalue('redis_server').url}?stream={uuid4()}"
    ),
}
"""By kind of log: the address of a new one."""


def new_logs(kind: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """Addresses of ever new logs of a kind, for tests that need one for each example."""
    url = URLS[kind](request, folder)
    while True:
        if kind == "memory":
            yield url
        elif kind == "sqlite":
            yield f"sqlite:///{folder}/{uuid4().hex}.db"
        else:
            yield f"{url.partition('?')[0]}?stream=test_{uuid4().hex}"


def examples(count: int) -> int:
    """So many examples, and twenty times as many with ``--hypothesis-profile=deep``."""
    return count * settings().max_examples // 100


settings.register_profile("deep", max_examples=2000)

SHARED = [kind for kind in URLS if kind != "memory"]
"""The kinds that several processes can use."""


@pytest.fixture(scope="session", autouse=True)
def _a_thousand_clients() -> None:
    """Let the tests, and the servers they start, open the descriptors that some of them need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < 4096:
        most = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for tests that leave it as they found it; others start their own."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from tests.browser import chromium  # is slow to import, and most tests need none

    with chromium() as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    yield context.new_page()
    context.close()


@pytest.fixture
def quick_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    quicken(monkeypatch)


@pytest.fixture
def start_redis(tmp_path: Path) -> Iterator[StartRedis]:
    """Starts servers of the test's own, which it may stop; they end with it, however it ends."""
    with ExitStack() as stack:

        def start(*options: str, folder: Path = tmp_path) -> RedisServer:
            server = RedisServer(folder, *options)
            stack.callback(server.end)
            return server

        yield start


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One server for tests that need a database of their own; others start their own server."""
    with PostgresServer(*STATEMENTS) as server:
        yield server


@pytest.fixture(params=URLS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a new log of each kind."""
    return URLS[request.param](request, tmp_path)


@pytest.fixture
def opened(url: str) -> Iterator[Open]:
    """Opens brokers on the test's URL, each as another process would, and closes them all."""
    brokers: list[Broker] = []

    def open_one(**retention: Any) -> Broker:
        brokers.append(connect(url, Retention(**retention)))
        return brokers[-1]

    yield open_one
    for broker in brokers:
        broker.close()


@pytest.fixture
def broker(opened: Open) -> Broker:
    return opened()


@pytest.fixture
def open_hub(url: str) -> Iterator[Callable[..., Hub]]:
    """Opens hubs on the test's URL, each as another process would, and closes them all."""
    hubs: list[Hub] = []

    def open_one(**options: Any) -> Hub:
        hubs.append(Hub(url, **options))
        return hubs[-1]

    yield open_one
    for hub in hubs:
        hub.close()


@pytest.fixture
def hub(open_hub: Callable[..., Hub]) -> Hub:
    return open_hub()
