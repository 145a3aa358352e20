"""examples/hypermedia, each page in Chromium with its real client."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
from playwright.sync_api import Browser, Error, Page, Route

from tests.browser import chromium
from tests.components import need_packages
from tests.ports import free_port
from tests.servers import ROOT, Server, running
from tests.waiting import until

pytestmark = pytest.mark.slow

PACKAGES = ROOT / "tests" / "clients_js"
PAGES = ["htmx2", "htmx2?native", "htmx4", "turbo", "turbo?native", "datastar"]
CLIENTS = [
    ("htmx", "htmx-2"),
    ("sse extension", "htmx-ext-sse"),
    ("htmx", "htmx-4"),
    ("Turbo", "@hotwired/turbo"),
    ("Datastar", "@starfederation/datastar"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    need_packages(PACKAGES)
    with chromium() as found:
        yield found


@pytest.fixture
def opened(browser: Browser) -> Iterator[dict[str, Page]]:
    """By name, an empty window for each page, which shares nothing with the others."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(browser.new_context()).new_page() for name in PAGES}


class Site:
    """The example on one port, where it can be stopped and started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def serve(self) -> AbstractContextManager[Server]:
        command = [sys.executable, "-m", "gunicorn", "--config", "/dev/null", "-k", "gevent"]
        command += ["--chdir", str(ROOT / "examples" / "hypermedia")]
        command += ["--bind", f"127.0.0.1:{self.port}", "app:app"]
        env = {"DATA": str(self.folder), "ASSETS": str(PACKAGES / "node_modules")}
        return running(command, self.port, env=env)

    def say(self, text: str) -> None:
        data = urlencode({"text": text}).encode()
        with urlopen(f"{self.url}/messages", data, timeout=10) as answer:
            assert answer.status == 204

    def lose_the_log(self) -> None:
        for file in self.folder.glob("hub.db*"):
            if file.is_file():
                file.unlink()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def shown(page: Page) -> list[tuple[str, str]]:
    """The messages of the page with the ids of their elements; none while it is loaded anew."""
    items = (
        "[...document.querySelectorAll('#messages > li')].map((item) => [item.id, item.innerText])"
    )
    try:
        found = [(key, text) for key, text in page.evaluate(items)]
    except Error as error:
        if "context was destroyed" not in error.message:
            raise
        return []
    if page.url.endswith("/datastar"):
        return [*dict(found).items()]  # what came between position and state is there twice
    return found


def open_all(opened: dict[str, Page], site: Site) -> None:
    """Open the pages, and wait until their streams are there."""
    for name, page in opened.items():
        with page.expect_response(lambda response: "/events/" in response.url):
            page.goto(f"{site.url}/{name}")
        page.evaluate("window.kept = true")


def until_shown(opened: dict[str, Page], *expected: str) -> None:
    messages = [(f"message-{number}", text) for number, text in enumerate(expected, 1)]
    for name, page in opened.items():
        until(lambda page=page: shown(page) == messages, 30, f"{name} to show {expected}")


def test_no_page_misses_anything_over_a_restart(opened: dict[str, Page], site: Site) -> None:
    with site.serve():
        site.say("before")
        open_all(opened, site)
        until_shown(opened, "before")
        site.say("<b>live</b>")
        until_shown(opened, "before", "<b>live</b>")
    with site.serve():
        site.say("while it was away")
        expected = ["before", "<b>live</b>", "while it was away"]
        until_shown(opened, *expected)
        site.say("again")
        until_shown(opened, *expected, "again")
        assert all(page.evaluate("window.kept") is True for page in opened.values())


def test_each_page_is_refreshed_when_its_history_is_lost(
    opened: dict[str, Page], site: Site
) -> None:
    with site.serve():
        open_all(opened, site)
        site.say("before")
        until_shown(opened, "before")
    site.lose_the_log()
    late = []

    def say_more(route: Route) -> None:
        """Let something happen after the new state was read and before the page has it."""
        response = route.fetch()
        if not late:
            late.append("meanwhile")
            site.say("meanwhile")
        route.fulfill(response=response)

    opened["htmx2"].route("**/htmx2", say_more)
    with site.serve():
        site.say("in a new log")
        until_shown(opened, "before", "in a new log", "meanwhile")
        site.say("live")
        until_shown(opened, "before", "in a new log", "meanwhile", "live")
        # htmx 2 fetches its part of the page alone; the others load the whole page.
        for name, page in opened.items():
            assert page.evaluate("window.kept === true") is name.startswith("htmx2")


def test_the_docs_name_the_versions() -> None:
    docs = (ROOT / "docs" / "clients.md").read_text()
    wanted = json.loads((PACKAGES / "package.json").read_text())["dependencies"]
    for name, package in CLIENTS:
        version = wanted[package].rpartition("@")[2]
        assert f"{name} {version}" in docs
