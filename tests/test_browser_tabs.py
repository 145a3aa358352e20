"""Tabs of Chromium that share one connection: whatever happens to one, none loses an event."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Page

from ssekit import Hub
from tests.browser import chromium
from tests.ports import free_port
from tests.servers import Server
from tests.tabs import Publisher, address, check, page_address, site, until_open
from tests.waiting import at_best, until


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tabs")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with site(folder) as running:
        yield running


@pytest.fixture(scope="module")
def hub(server: Server, folder: Path) -> Iterator[Hub]:
    with closing(Hub(address(folder))) as made:
        yield made


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    with browser.new_context() as made:
        yield made


@pytest.fixture
def tabs(context: BrowserContext, server: Server) -> list[Page]:
    return [opened(context, server) for _ in range(8)]


def opened(context: BrowserContext, server: Server, url: str = "events", **options: Any) -> Page:
    page = context.new_page()
    page.goto(page_address(server, url, **options))
    # The second tab and each later one follow the first.
    shows(page, "window.stream?.readyState === 1")
    return page


def shows(page: Page, condition: str, seconds: float = 10) -> None:
    """Wait until the expression is true in the page, whose policy forbids `wait_for_function`."""
    until(lambda: page.evaluate(condition), seconds, condition)


def role(page: Page) -> str:
    return str(page.evaluate("stream.status.role"))


def leader(pages: list[Page]) -> Page:
    def found() -> list[Page]:
        return [page for page in pages if role(page) == "leader"]

    return until(found, what="a leader")[0]


def settled(pages: list[Page]) -> None:
    """Wait until one tab leads and all others follow it."""

    def roles() -> bool:
        return sorted(map(role, pages)) == [*["follower"] * (len(pages) - 1), "leader"]

    until(roles, 20, "one leader and its followers")


def finish(publisher: Publisher, pages: list[Page], least: int = 1) -> None:
    """Publish no more, and check what each tab has seen: everything, once and in order."""
    last = publisher.stop()
    for page in pages:
        until(lambda page=page: page.evaluate("seen.at(-1)") == last, 20, f"event {last}")
    for page in pages:
        seen = page.evaluate("seen")
        check(seen, last)
        assert len(seen) >= least
        assert "stream-reset" not in page.evaluate("marks")


def run(page: Page, seconds: float) -> None:
    """Let events flow for a while: what is tested has to happen under load."""
    page.wait_for_timeout(seconds * 1000)


def test_eight_tabs_have_one_connection(server: Server, tabs: list[Page], hub: Hub) -> None:
    with Publisher(hub, 200) as publisher:
        settled(tabs)
        until_open(server, 1)
        assert tabs[0].evaluate("stream.tabs()") == 8
        run(tabs[0], 0.5)
        finish(publisher, tabs, 50)
    until_open(server, 1)


def test_tabs_of_a_quiet_stream_have_one_connection_too(server: Server, tabs: list[Page]) -> None:
    settled(tabs)
    until_open(server, 1)


def test_the_next_event_of_a_quiet_stream_reaches_all_once(
    server: Server, tabs: list[Page], hub: Hub
) -> None:
    # Another channel's events: each tab begins at an id that is not in its stream.
    settled(tabs)
    for number in range(1, 4):
        hub.publish("elsewhere", 0)
        hub.publish("news", number)
    for page in tabs:
        until(lambda page=page: page.evaluate("seen.length") >= 3, what="three events")
        assert page.evaluate("seen") == [1, 2, 3]
    settled(tabs)
    until_open(server, 1)


def test_a_tab_that_joins_later_begins_at_its_own_opening(
    server: Server, context: BrowserContext, hub: Hub
) -> None:
    first = opened(context, server)
    with Publisher(hub, 200) as publisher:
        run(first, 0.3)
        second = opened(context, server)
        settled([first, second])
        assert second.evaluate("seen[0]") > 1
        finish(publisher, [first, second])


def test_the_leader_is_closed_and_another_has_its_place_within_100_ms(
    context: BrowserContext, server: Server, hub: Hub
) -> None:
    def takeover() -> float:
        pages = [opened(context, server) for _ in range(3)]
        with Publisher(hub, 200) as publisher:
            settled(pages)
            first = leader(pages)
            rest = [page for page in pages if page is not first]
            closed: float = first.evaluate("stream.close(), Date.now()")
            second = leader(rest)
            changes = second.evaluate("statuses")
            settled(rest)
            finish(publisher, rest)
        for page in pages:
            page.close()
        took: float = next(time for time, _, _, role in changes if role == "leader") - closed
        return took

    assert any(took < 100 for took in at_best(takeover))


def close(page: Page) -> None:
    page.close()


def navigate(page: Page) -> None:
    page.goto(page.url.replace("/?", "/other.html?"))


def crash(page: Page) -> None:
    page.on("crash", lambda: None)
    with pytest.raises(Error):
        page.goto("chrome://crash")


@pytest.mark.parametrize("end", [close, navigate, crash])
def test_a_leader_that_goes_takes_no_event_with_it(
    server: Server, tabs: list[Page], hub: Hub, end: Any
) -> None:
    with Publisher(hub, 200) as publisher:
        settled(tabs)
        for _ in range(3):
            gone = leader(tabs)
            tabs.remove(gone)
            end(gone)
            leader(tabs)
        settled(tabs)
        finish(publisher, tabs)
    until_open(server, 1)


def test_a_page_that_comes_back_from_bfcache_goes_on_where_it_was(
    server: Server, tabs: list[Page], hub: Hub
) -> None:
    with Publisher(hub, 200) as publisher:
        settled(tabs)
        follower = next(page for page in tabs if role(page) == "follower")
        for page in (leader(tabs), follower):
            navigate(page)
        run(tabs[-1], 0.5)
        for page in tabs:
            if "other" in page.url:
                page.go_back()
                assert page.evaluate("shown") == [False, True], "it was not in bfcache"
        settled(tabs)
        finish(publisher, tabs, 100)


def test_a_frozen_tab_goes_on_where_it_was(server: Server, tabs: list[Page], hub: Hub) -> None:
    with Publisher(hub, 200) as publisher:
        settled(tabs)
        follower = next(page for page in tabs if role(page) == "follower")
        frozen = [(page, page.context.new_cdp_session(page)) for page in (leader(tabs), follower)]
        for _, session in frozen:
            session.send("Page.setWebLifecycleState", {"state": "frozen"})
        others = [page for page in tabs if page not in [page for page, _ in frozen]]
        leader(others)
        run(others[0], 0.5)
        for _, session in frozen:
            session.send("Page.setWebLifecycleState", {"state": "active"})
        settled(tabs)
        finish(publisher, tabs, 100)


BLOCK = """(seconds) => setTimeout(() => {
    const end = performance.now() + seconds * 1000;
    while (performance.now() < end);
})"""


def test_a_blocked_leader_loses_its_place_within_3_s_and_no_event(
    server: Server, tabs: list[Page], hub: Hub
) -> None:
    with Publisher(hub, 200) as publisher:
        settled(tabs)
        blocked = leader(tabs)
        others = [page for page in tabs if page is not blocked]
        began = time.time() * 1000
        blocked.evaluate(BLOCK, 5)
        second = leader(others)
        took = next(time for time, _, _, role in second.evaluate("statuses") if role == "leader")
        settled(tabs)
        finish(publisher, tabs, 200)
    assert took - began < 3500  # the page itself counts from when it was blocked


def test_tabs_come_back_with_their_server(context: BrowserContext, tmp_path: Path) -> None:
    bind = ["--bind", f"127.0.0.1:{free_port()}"]
    with closing(Hub(address(tmp_path))) as hub, Publisher(hub, 100) as publisher:
        with site(tmp_path, *bind) as server:
            server.port = int(bind[1].rpartition(":")[2])
            tabs = [opened(context, server) for _ in range(4)]
            settled(tabs)
            # Killed, not stopped: nothing says goodbye.
            for child in server.children():
                os.kill(child, signal.SIGKILL)
            server.process.kill()
            server.process.wait()
        until(lambda: all(page.evaluate("stream.readyState") == 0 for page in tabs), what="loss")
        with site(tmp_path, *bind):
            settled(tabs)
            finish(publisher, tabs)


def test_a_stopped_server_is_noticed_by_its_silence(
    context: BrowserContext, server: Server, hub: Hub
) -> None:
    tabs = [opened(context, server, silence=1500) for _ in range(3)]
    with Publisher(hub, 100) as publisher:
        settled(tabs)
        workers = server.children()
        for worker in workers:
            os.kill(worker, signal.SIGSTOP)
        try:
            for page in tabs:
                shows(page, "statuses.some(([, , reason]) => reason === 'silence')")
        finally:
            for worker in workers:
                os.kill(worker, signal.SIGCONT)
        settled(tabs)
        finish(publisher, tabs)


def test_closing_all_closes_every_tab(server: Server, tabs: list[Page]) -> None:
    settled(tabs)
    next(page for page in tabs if role(page) == "follower").evaluate("stream.closeAll()")
    for page in tabs:
        shows(page, "stream.readyState === 2")
    until_open(server, 0)


def test_a_user_who_logs_out_is_out_in_all_tabs(server: Server, context: BrowserContext) -> None:
    cookie = {"name": "user", "value": "ada", "url": server.url}
    context.add_cookies([cookie])
    tabs = [opened(context, server, url="private") for _ in range(4)]
    settled(tabs)
    context.clear_cookies()
    # The server ends the stream of a user who has logged out; here a hidden page does.
    leader(tabs).evaluate("document.dispatchEvent(new Event('freeze'))")
    for page in tabs:
        if page.evaluate("stream.status.state") != "paused":
            shows(page, "stream.status.reason === 'refused'")


def test_tabs_of_different_users_share_nothing(server: Server, context: BrowserContext) -> None:
    pages = [opened(context, server, share=user) for user in ("ada", "ada", "grace")]
    settled(pages[:2])
    assert role(pages[2]) == "leader"
    until_open(server, 2)
