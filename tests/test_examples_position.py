"""examples/position.py in Chromium: a change between rendering and the stream is never missed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
from playwright.sync_api import Page, Route, expect

from ssekit import Hub
from tests.servers import Server, gunicorn

pytestmark = pytest.mark.ci

SERVERS_PLACES = [
    "before the page",
    "after the position",
    "after the state",
    "after the page",
    "before the stream",
    "after the stream",
    "before the position, then after the position",
    "after the state, then after the stream",
]
"""Places in time that are in the server; where there are two, of the commit and of the event."""


@contextmanager
def served(folder: Path) -> Iterator[Server]:
    env = {"SSEKIT_URL": address(folder), "DATABASE": f"{folder}/votes.db"}
    with gunicorn("tests.apps.votes_between:app", env=env) as server:
        yield server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(tmp_path_factory.mktemp("votes")) as running:
        yield running


def begin(server: Server, place: str = "") -> dict[str, int]:
    """Have the next vote come at a place; returns the votes until now."""
    with urlopen(f"{server.url}/place?{urlencode({'place': place})}", b"", timeout=10) as answer:
        return dict(json.load(answer))


def address(folder: Path) -> str:
    return f"sqlite:///{folder}/hub.db"


def vote(server: Server, drink: str = "tea") -> None:
    with urlopen(Request(f"{server.url}/votes/{drink}", method="POST"), timeout=10):
        pass


def shows(page: Page, tea: int) -> None:
    """Wait until the page shows so many votes for tea, and is live."""
    expect(page.locator("#tea")).to_have_text(str(tea), timeout=15_000)
    expect(page.locator("#status")).to_have_text("live", timeout=15_000)


@pytest.mark.parametrize("place", SERVERS_PLACES)
def test_a_vote_is_not_missed_that_comes(place: str, server: Server, page: Page) -> None:
    before = begin(server, place)["tea"]
    page.goto(server.url)
    shows(page, before + 1)


@pytest.mark.parametrize("what", ["the page on its way", "the request for the stream on its way"])
def test_a_vote_is_not_missed_that_comes_with(what: str, server: Server, page: Page) -> None:
    before = begin(server)["tea"]

    def with_a_vote(route: Route) -> None:
        response: Any = route.fetch() if what.startswith("the page") else None
        vote(server)
        if response:
            route.fulfill(response=response)
        else:
            route.continue_()

    pattern = f"{server.url}/" if what.startswith("the page") else "**/events?*"
    page.route(pattern, with_a_vote, times=1)
    page.goto(server.url)
    shows(page, before + 1)
    vote(server)
    shows(page, before + 2)


def test_a_page_from_a_cache_shows_what_has_changed_since(server: Server, page: Page) -> None:
    before = begin(server)
    with urlopen(server.url, timeout=10) as answer:
        cached = answer.read().decode()
    for _ in range(5):
        vote(server)
    vote(server, "coffee")
    page.route(f"{server.url}/", lambda route: route.fulfill(body=cached, content_type="text/html"))
    page.goto(server.url)
    shows(page, before["tea"] + 5)
    expect(page.locator("#coffee")).to_have_text(str(before["coffee"] + 1))
    assert page.url == f"{server.url}/"


def test_a_page_from_a_cache_that_is_too_old_is_loaded_anew(tmp_path: Path, page: Page) -> None:
    with Hub(address(tmp_path), history=3) as hub:
        hub.position()  # It makes the log, with so little history.
    with served(tmp_path) as server:
        with urlopen(server.url, timeout=10) as answer:
            cached = answer.read().decode()
        for _ in range(12):
            vote(server)
        page.route(
            f"{server.url}/", lambda route: route.fulfill(body=cached, content_type="text/html")
        )
        page.goto(server.url)
        shows(page, 12)
        assert "?fresh=" in page.url
