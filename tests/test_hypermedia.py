"""examples/hypermedia: each page in Chromium with its real client, all of them at once."""

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

# Six pages at once: more than a minute where much else runs beside them.
pytestmark = [pytest.mark.ci, pytest.mark.timeout(180)]

PACKAGES = ROOT / "tests" / "clients_js"
NAMES = ["htmx2", "htmx2?native", "htmx4", "turbo", "turbo?native", "datastar"]
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


@pytest.fixture(scope="module")
def pages(browser: Browser) -> Iterator[dict[str, Page]]:
    """For each name a page of a visitor of its own."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(browser.new_context()).new_page() for name in NAMES}


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
    """The messages of the page with the ids of their elements; none while it is reloaded."""
    items = (
        "[...document.querySelectorAll('#messages > li')].map((item) => [item.id, item.innerText])"
    )
    try:
        found = [(key, text) for key, text in page.evaluate(items)]
    except Error as error:
        if "context" not in error.message:  # that of its scripts was destroyed, or is not found
            raise
        return []
    if page.url.endswith("/datastar"):
        return [*dict(found).items()]  # what came between position and state is there twice
    return found


def open_all(pages: dict[str, Page], site: Site) -> None:
    """Open them and wait until their streams are there."""
    for name, page in pages.items():
        with page.expect_response(lambda response: "/events/" in response.url):
            page.goto(f"{site.url}/{name}")
        page.evaluate("window.kept = true")


def all_show(pages: dict[str, Page], expected: list[str]) -> None:
    messages = [(f"message-{number}", text) for number, text in enumerate(expected, 1)]
    for name, page in pages.items():
        until(lambda page=page: shown(page) == messages, 40, f"{expected} in {name}")


def kept(page: Page) -> bool:
    """Whether it is still the page that was opened."""
    return bool(page.evaluate("window.kept === true"))


def test_no_page_misses_anything_over_a_restart(pages: dict[str, Page], site: Site) -> None:
    with site.serve():
        site.say("before")
        open_all(pages, site)
        all_show(pages, ["before"])
        site.say("<b>live</b>")
        all_show(pages, ["before", "<b>live</b>"])
    with site.serve():
        site.say("while it was away")
        expected = ["before", "<b>live</b>", "while it was away"]
        all_show(pages, expected)
        site.say("again")
        all_show(pages, [*expected, "again"])
    assert {name: kept(page) for name, page in pages.items()} == dict.fromkeys(NAMES, True)


def test_every_page_is_refreshed_when_history_is_lost(pages: dict[str, Page], site: Site) -> None:
    with site.serve():
        open_all(pages, site)
        site.say("before")
        all_show(pages, ["before"])
    site.lose_the_log()
    late = []

    def say_more(route: Route) -> None:
        """Let something happen after the new state was read and before the page has it."""
        response = route.fetch()
        if not late:
            late.append("meanwhile")
            site.say("meanwhile")
        route.fulfill(response=response)

    pages["htmx2"].route("**/htmx2", say_more)
    with site.serve():
        site.say("in a new log")
        all_show(pages, ["before", "in a new log", "meanwhile"])
        site.say("live")
        all_show(pages, ["before", "in a new log", "meanwhile", "live"])
    # htmx 2 fetches its part of the page alone; the others load the whole page.
    assert {name for name, page in pages.items() if kept(page)} == {"htmx2", "htmx2?native"}


def test_the_docs_name_the_versions() -> None:
    docs = (ROOT / "docs" / "clients.md").read_text()
    wanted = json.loads((PACKAGES / "package.json").read_text())["dependencies"]
    for name, package in CLIENTS:
        version = wanted[package].rpartition("@")[2]
        assert f"{name} {version}" in docs
