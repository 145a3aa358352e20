"""Tabs that share one connection: whatever happens to one of them, none loses an event."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from ssekit import Hub
from tests import remote
from tests.cable import cable
from tests.components import need
from tests.ports import free_port
from tests.remote import ChromiumTab
from tests.servers import Server
from tests.tabs import (
    Publisher,
    Tabs,
    address,
    block,
    close,
    finish,
    follower,
    kill,
    leader,
    leave,
    page_address,
    role,
    settle,
    shows,
    site,
    until_open,
)
from tests.waiting import mostly_below, until

pytestmark = pytest.mark.browser

RATE = 200
"""Events a second: what is tested has to happen under load."""

IMPATIENT: dict[str, Any] = {"silence": 500, "delay": 100}
"""Options of a Stream that soon notices silence, and then soon tries again."""


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


@pytest.fixture(scope="module")
def tabs(server: Server) -> Iterator[Tabs[ChromiumTab]]:
    with remote.chromium(need("chromium")) as browser:
        yield Tabs(browser, server, 8)


@pytest.fixture(autouse=True)
def _a_failure_is_one_failure(
    request: pytest.FixtureRequest, tabs: Tabs[ChromiumTab]
) -> Iterator[None]:
    """The next test finds nothing of one that failed."""
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        tabs.begin_anew()


def test_eight_tabs_have_one_connection(server: Server, tabs: Tabs[ChromiumTab], hub: Hub) -> None:
    pages = tabs.fresh()
    with Publisher(hub, RATE) as publisher:
        assert pages[0].evaluate("stream.tabs()") == 8
        finish(publisher, pages, 50)
    until_open(server, 1)


def test_a_strict_policy_forbids_nothing_that_it_does(tabs: Tabs[ChromiumTab]) -> None:
    for tab in tabs.fresh():
        policy = tab.evaluate("policy()")
        assert "default-src 'none'; script-src 'self'; connect-src 'self'" in policy
        assert tab.evaluate("violations") == []


def test_a_tab_that_joins_later_begins_at_its_own_opening(
    tabs: Tabs[ChromiumTab], hub: Hub
) -> None:
    pages = tabs.fresh()
    with Publisher(hub, RATE) as publisher:
        publisher.more(50)
        late = tabs.open()
        settle([*pages, late])
        shows(late, "seen[0] > 1")
        finish(publisher, [*pages, late])
    late.close()


def test_a_leader_that_is_closed_is_followed_by_another_within_100_ms(
    tabs: Tabs[ChromiumTab], hub: Hub
) -> None:
    def takeover() -> float:
        pages = tabs.fresh()
        with Publisher(hub, RATE) as publisher:
            first = leader(pages)
            pages.remove(first)
            closed: float = first.evaluate("(stream.close(), Date.now())")
            second = leader(pages)
            settle(pages)
            finish(publisher, pages)
        tabs.forget(first)
        first.close()
        changes = second.evaluate("statuses")
        led = next(float(at) for at, _, _, role in changes if role == "leader")
        return (led - closed) / 1000

    assert mostly_below(0.1, takeover)


def crash(tab: ChromiumTab) -> None:
    tab.crash()


@pytest.mark.parametrize("end", [close, leave, crash])
def test_no_event_is_lost_when_a_leader_closes_leaves_or_crashes(
    server: Server, tabs: Tabs[ChromiumTab], hub: Hub, end: Callable[[ChromiumTab], None]
) -> None:
    pages = tabs.fresh()
    with Publisher(hub, RATE) as publisher:
        for _ in range(2):
            gone = leader(pages)
            pages.remove(gone)
            tabs.forget(gone)
            end(gone)
            leader(pages)
        settle(pages)
        finish(publisher, pages, 20)
    until_open(server, 1)


def test_a_page_that_comes_back_from_bfcache_goes_on_where_it_was(
    tabs: Tabs[ChromiumTab], hub: Hub
) -> None:
    pages = tabs.fresh()
    with Publisher(hub, RATE) as publisher:
        away = [leader(pages), follower(pages)]
        for tab in away:
            leave(tab)
        publisher.more(50)
        for tab in away:
            tab.back()
            shows(tab, "window.shown?.length")
            assert tab.evaluate("shown") == [True], "it was not in bfcache"
        settle(pages)
        finish(publisher, pages, 100)


def test_a_frozen_tab_goes_on_where_it_was(tabs: Tabs[ChromiumTab], hub: Hub) -> None:
    pages = tabs.fresh()
    with Publisher(hub, RATE) as publisher:
        frozen = [leader(pages), follower(pages)]
        for tab in frozen:
            tab.freeze()
        leader([tab for tab in pages if tab not in frozen])
        publisher.more(50)
        for tab in frozen:
            tab.freeze(False)
        settle(pages)
        finish(publisher, pages, 100)


def test_a_blocked_leader_loses_its_place_within_3_s_and_no_event(
    tabs: Tabs[ChromiumTab], hub: Hub
) -> None:
    pages = tabs.fresh()
    with Publisher(hub, RATE) as publisher:
        blocked = leader(pages)
        others = [tab for tab in pages if tab is not blocked]
        began = block(blocked, 3)
        second = leader(others)
        settle(pages)
        finish(publisher, pages, 200)
    changes = second.evaluate("statuses")
    took = next(at for at, _, _, role in changes if role == "leader") - began
    assert took < 3000, f"{took} ms"


def test_a_browser_that_was_asleep_goes_on_where_it_was(tabs: Tabs[ChromiumTab], hub: Hub) -> None:
    # All of its processes are stopped, for longer than a leader may be silent; the clock goes on.
    pages = tabs.fresh()
    with Publisher(hub, RATE) as publisher:
        with tabs.browser.asleep():
            publisher.more(RATE * 5 // 2)
        settle(pages)
        finish(publisher, pages, RATE * 5 // 2)


def test_closing_all_closes_every_tab(server: Server, tabs: Tabs[ChromiumTab]) -> None:
    pages = tabs.fresh()
    follower(pages).evaluate("stream.closeAll()")
    for tab in pages:
        shows(tab, "stream.readyState === 2")
    until_open(server, 0)
    tabs.forget_all()


def test_the_next_event_of_a_quiet_stream_reaches_all_once(
    server: Server, tabs: Tabs[ChromiumTab], hub: Hub
) -> None:
    tabs.forget_all()
    opened = []
    for _ in range(4):
        # Another channel's event: each tab begins at an id that is not in its stream.
        hub.publish("elsewhere", 0)
        opened.append(tabs.open())
    settle(opened)
    until_open(server, 1)
    for number in range(1, 4):
        hub.publish("news", number)
        hub.publish("elsewhere", 0)
    for tab in opened:
        shows(tab, "seen.length >= 3")
        assert tab.evaluate("seen") == [1, 2, 3]
    settle(opened)
    until_open(server, 1)
    for tab in opened:
        tab.close()


def test_values_and_passing_events_are_the_same_in_every_tab(
    server: Server, tabs: Tabs[ChromiumTab], hub: Hub
) -> None:
    tabs.forget_all()
    channel = "prices"
    for name in ("EUR", "GBP"):
        hub.publish(channel, {"key": name, "bid": 1}, "price", key=name)
    opened = []
    for number in range(4):
        # Each tab finds other values in its opening.
        hub.publish(channel, {"key": "JPY", "bid": number}, "price", key="JPY")
        opened.append(tabs.open(f"events?channel={channel}"))
    settle(opened)
    hub.remove(channel, "GBP")
    hub.publish(channel, {"key": "EUR", "bid": 2}, "price", key="EUR")
    for number in range(20):
        hub.publish(channel, number, "typing", store=False)
    first = leader(opened)
    opened.remove(first)
    for tab in opened:
        shows(tab, "passed.at(-1) === '19'")
        assert tab.evaluate("passed") == [str(number) for number in range(20)]
    first.close()
    leader(opened)
    hub.publish(channel, {"key": "CHF", "bid": 3}, "price", key="CHF")
    for tab in opened:
        shows(tab, "stream.values.has('CHF')")
        values = tab.evaluate("Object.fromEntries(stream.values)")
        assert {name: value["bid"] for name, value in values.items()} == {
            "EUR": 2,
            "JPY": 3,
            "CHF": 3,
        }
    hub.finish(channel)
    for tab in opened:
        shows(tab, "stream.status.reason === 'finished'", 20)
        assert tab.evaluate("marks").count("stream-end") == 1
        tab.close()
    until_open(server, 0)


@contextmanager
def signalled(server: Server, stop: int, go: int) -> Iterator[None]:
    workers = server.children()
    for worker in workers:
        os.kill(worker, stop)
    try:
        yield
    finally:
        for worker in workers:
            os.kill(worker, go)


def test_a_stopped_server_is_noticed_by_its_silence(
    server: Server, tabs: Tabs[ChromiumTab], hub: Hub
) -> None:
    opened = [tabs.open(share="quick", **IMPATIENT) for _ in range(3)]
    with Publisher(hub, 100) as publisher:
        settle(opened)
        with signalled(server, signal.SIGSTOP, signal.SIGCONT):
            for tab in opened:
                shows(tab, "statuses.some(([, , reason]) => reason === 'silence')")
        settle(opened)
        finish(publisher, opened)
    for tab in opened:
        tab.close()


def test_a_proxy_that_swallows_is_noticed_by_its_silence(
    server: Server, tabs: Tabs[ChromiumTab], hub: Hub
) -> None:
    with cable(server.port) as proxy, Publisher(hub, 100) as publisher:
        opened = []
        for _ in range(3):
            tab = tabs.browser.open()
            tab.go(page_address(proxy.url, **IMPATIENT))
            shows(tab, "window.stream?.readyState === 1")
            opened.append(tab)
        settle(opened)
        proxy.swallow()
        for tab in opened:
            shows(tab, "statuses.some(([, , reason]) => reason === 'silence')")
        settle(opened)
        finish(publisher, opened)
        for tab in opened:
            tab.close()


def test_tabs_come_back_with_their_server(tabs: Tabs[ChromiumTab], tmp_path: Path) -> None:
    bind = ["--bind", f"127.0.0.1:{free_port()}"]
    with closing(Hub(address(tmp_path))) as hub, Publisher(hub, 100) as publisher:
        with site(tmp_path, *bind) as server:
            server.port = int(bind[1].rpartition(":")[2])
            there = Tabs(tabs.browser, server, 4)
            opened = there.fresh()
            kill(server)
        for tab in opened:
            shows(tab, "stream.readyState === 0")
        with site(tmp_path, *bind):
            settle(opened)
            finish(publisher, opened)
    there.forget_all()


def test_a_user_who_logs_out_is_out_in_all_tabs(server: Server, tabs: Tabs[ChromiumTab]) -> None:
    tabs.forget_all()
    first = tabs.browser.open()
    first.go(f"{server.url}/other.html")
    first.evaluate("(document.cookie = 'user=ada')")
    opened = [tabs.open("private") for _ in range(3)]
    settle(opened)
    first.evaluate("(document.cookie = 'user=; max-age=0')")
    gone = leader(opened)
    opened.remove(gone)
    gone.close()
    for tab in opened:
        shows(tab, "stream.status.reason === 'refused' && stream.readyState === 2")
    for tab in (first, *opened):
        tab.close()


def test_tabs_of_different_users_share_nothing(server: Server, tabs: Tabs[ChromiumTab]) -> None:
    tabs.forget_all()
    opened = [tabs.open(share=user) for user in ("ada", "ada", "grace")]
    settle(opened[:2])
    assert role(opened[2]) == "leader"
    until_open(server, 2)
    for tab in opened:
        tab.close()


def test_a_hidden_tab_gives_its_connection_back_if_asked(
    server: Server, tabs: Tabs[ChromiumTab], hub: Hub
) -> None:
    tabs.forget_all()
    tab = tabs.open(whenHidden="close")
    until_open(server, 1)
    other = tabs.browser.open()  # it is in front now
    shows(tab, "stream.status.state === 'paused'")
    until_open(server, 0)
    hub.publish("news", 1)
    other.close()
    tab.show()
    shows(tab, "seen.length === 1")
    tab.close()


def test_an_insecure_origin_has_a_connection_for_each_tab(
    server: Server, tabs: Tabs[ChromiumTab], hub: Hub
) -> None:
    tabs.forget_all()
    opened = []
    for _ in range(2):
        tab = tabs.browser.open()
        tab.go(f"http://insecure.test:{server.port}/?url=events")
        shows(tab, "window.stream?.readyState === 1")
        opened.append(tab)
    assert [tab.evaluate("[isSecureContext, stream.status.role]") for tab in opened] == [
        [False, "alone"]
    ] * 2
    hub.publish("news", 1)
    for tab in opened:
        shows(tab, "seen.length === 1")
    assert opened[0].evaluate("stream.tabs()") == 1
    until_open(server, 2)
    for tab in opened:
        tab.close()


def test_a_sandboxed_frame_has_a_connection_of_its_own(
    server: Server, tabs: Tabs[ChromiumTab], hub: Hub
) -> None:
    tabs.forget_all()
    outer = tabs.browser.open()
    outer.go(f"{server.url}/frame.html")
    shows(outer, "window.said?.role === 'alone' && said.state === 'open'")
    hub.publish("news", 1)
    shows(outer, "said.seen === 1")
    outer.close()


@pytest.mark.parametrize("kind", ["Worker", "SharedWorker"])
def test_a_worker_shares_with_its_page(
    kind: str, server: Server, tabs: Tabs[ChromiumTab], hub: Hub
) -> None:
    tabs.forget_all()
    page = tabs.browser.open()
    page.go(f"{server.url}/worker.html?kind={kind}")
    shows(page, "window.said?.state === 'open' && stream.readyState === 1")
    until(
        lambda: {page.evaluate("said.role"), role(page)} == {"leader", "follower"}, what="sharing"
    )
    hub.publish("news", 1)
    shows(page, "said.seen === 1 && seen.length === 1")
    until_open(server, 1)
    page.close()
