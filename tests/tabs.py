"""A site, tabs that share its stream, a publisher, and what must be true of all tabs."""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode
from urllib.request import urlopen

from ssekit import Hub
from tests.remote import Browser, Tab
from tests.servers import Server, gunicorn
from tests.waiting import until

T = TypeVar("T", bound=Tab)


@contextmanager
def site(folder: Path, *options: str, **env: str) -> Iterator[Server]:
    with gunicorn("tests.apps.tabs:app", *options, env={"HUB": address(folder), **env}) as server:
        yield server


def address(folder: Path) -> str:
    return f"sqlite:///{folder}/tabs.db"


def page_address(site: str, url: str = "events", **options: Any) -> str:
    """The page below ``site`` that follows ``url`` with these options of a Stream."""
    query = {"url": url, **({"options": json.dumps(options)} if options else {})}
    return f"{site}/?{urlencode(query)}"


def connections(server: Server) -> int:
    with urlopen(f"{server.url}/open", timeout=10) as answer:
        return int(answer.read())


def until_open(server: Server, count: int, seconds: float = 10) -> None:
    until(lambda: connections(server) == count, seconds, f"{count} connections")


class Publisher:
    """Publishes 1, 2, 3, ... to a channel at a rate, from another process than the server's."""

    def __init__(self, hub: Hub, rate: float, channel: str = "news") -> None:
        self._hub = hub
        self._rate = rate
        self._channel = channel
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.last = 0

    def _run(self) -> None:
        began = time.monotonic()
        for number in itertools.count(1):
            if self._stopped.wait(max(0, began + number / self._rate - time.monotonic())):
                return
            self._hub.publish(self._channel, number)
            self.last = number

    def __enter__(self) -> Publisher:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def more(self, count: int) -> None:
        """Wait until so many more have been published."""
        wanted = self.last + count
        until(lambda: self.last >= wanted, 30, f"{count} more events")

    def stop(self) -> int:
        """Publish no more; the last number."""
        self._stopped.set()
        self._thread.join()
        return self.last


def check(seen: Sequence[int], last: int) -> None:
    """Assert that a tab has lost, repeated and reordered nothing, and has come to the end."""
    wrong = [pair for pair in itertools.pairwise(seen) if pair[1] != pair[0] + 1]
    assert not wrong, f"{len(wrong)} of {len(seen)} events do not follow: {wrong[:5]}"
    assert seen, "no event"
    assert seen[-1] == last, f"the last is {seen[-1]}, not {last}"


def role(tab: Tab) -> str:
    return str(tab.evaluate("stream.status.role"))


def shows(tab: Tab, condition: str, seconds: float = 10) -> None:
    """Wait until the expression is true in the tab."""
    until(lambda: tab.evaluate(condition), seconds, condition)


def leader(tabs: Sequence[T]) -> T:
    """Wait until one of the tabs leads."""
    return until(lambda: [tab for tab in tabs if role(tab) == "leader"], what="a leader")[0]


def follower(tabs: Sequence[T]) -> T:
    return next(tab for tab in tabs if role(tab) == "follower")


def settle(tabs: Sequence[Tab], seconds: float = 20) -> None:
    """Wait until one tab leads and all others follow it."""
    wanted = [*["follower"] * (len(tabs) - 1), "leader"]
    until(lambda: sorted(map(role, tabs)) == wanted, seconds, "one leader and its followers")


def close(tab: Tab) -> None:
    tab.close()


def leave(tab: Tab) -> None:
    """Go to another page of the site."""
    tab.go(tab.evaluate("location.href").replace("/?", "/other.html?"))


def block(tab: Tab, seconds: float) -> float:
    """Keep the tab's main thread busy; return its time now in milliseconds."""
    busy = f"const end = Date.now() + {seconds * 1000}; while (Date.now() < end);"
    return float(tab.evaluate(f"(setTimeout(() => {{ {busy} }}), Date.now())"))


def kill(server: Server) -> None:
    """Without a word to its clients."""
    for process in (*server.children(), server.process.pid):
        os.kill(process, signal.SIGKILL)
    server.process.wait()


class Tabs(Generic[T]):
    """Tabs that stay open from test to test; each test finds as many as there should be."""

    def __init__(self, browser: Browser[T], server: Server, count: int) -> None:
        self.browser = browser
        self._server = server
        self._count = count
        self._pool: list[T] = []
        self._open: list[T] = []

    def open(self, url: str = "events", **options: Any) -> T:
        """One more tab, of the test's own."""
        tab = self.browser.open()
        self._open.append(tab)
        tab.go(page_address(self._server.url, url, **options))
        shows(tab, "window.stream?.readyState === 1")
        return tab

    def fresh(self) -> list[T]:
        """Settled tabs that have seen nothing; the list is the test's to change."""
        while len(self._pool) < self._count:
            self._pool.append(self.open())
        settle(self._pool)
        until_open(self._server, 1)
        for tab in self._pool:
            tab.evaluate("seen.length = marks.length = statuses.length = shown.length = 0")
        return list(self._pool)

    def forget(self, tab: T) -> None:
        """The tab is closed, or of no use to the next test."""
        self._pool.remove(tab)

    def forget_all(self) -> None:
        for tab in self._pool:
            tab.close()
        self._pool.clear()

    def begin_anew(self) -> None:
        """Close all, whatever a test that failed has left of them."""
        for tab in self._open:
            with suppress(Exception):
                tab.close()
        self._open.clear()
        self._pool.clear()


def finish(publisher: Publisher, tabs: Sequence[Tab], least: int = 1) -> None:
    """Let each tab have so many events, publish no more, and check what each has seen.

    That is everything, once and in order.
    """
    for tab in tabs:
        shows(tab, f"seen.length >= {least}", 20)
    last = publisher.stop()
    for tab in tabs:
        shows(tab, f"seen.at(-1) === {last}", 20)
        seen, marks = tab.evaluate("[seen, marks]")
        check(seen, last)
        assert "stream-reset" not in marks
