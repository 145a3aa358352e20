"""Tabs of Firefox and WebKitGTK that share one connection, as those of Chromium do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from ssekit import Hub
from tests import remote
from tests.components import need
from tests.ports import free_port
from tests.remote import FirefoxTab
from tests.tabs import (
    Publisher,
    Tabs,
    address,
    block,
    close,
    finish,
    kill,
    leader,
    leave,
    settle,
    shows,
    site,
    until_open,
)

pytestmark = [pytest.mark.browser, pytest.mark.ci]

RATE, HISTORY = 200, 10_000


def crash(tab: FirefoxTab) -> None:
    tab.crash()


@contextmanager
def firefox() -> Iterator[remote.Firefox]:
    with remote.firefox(need("firefox-esr")) as browser:
        yield browser


@contextmanager
def webkit() -> Iterator[remote.WebKit]:
    driver, display = need("WebKitWebDriver"), need("Xvfb")
    # Debian keeps it beside the library that it shows.
    program = next(Path("/usr/lib").glob("*/webkit2gtk-4.*/MiniBrowser"), "MiniBrowser")
    with remote.webkit(driver, display, need(str(program))) as browser:
        yield browser


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("browser_of", "ends"),
    # WebKit's driver ends its session when the process of a page dies.
    [(firefox, [close, crash]), (webkit, [close])],
    ids=["firefox", "webkit"],
)
def test_no_event_is_lost_when_leaders_close_crash_leave_and_block_and_the_server_restarts(
    browser_of: Callable[[], AbstractContextManager[Any]],
    ends: Sequence[Callable[[Any], None]],
    tmp_path: Path,
) -> None:
    port = free_port()
    bind = ["--bind", f"127.0.0.1:{port}"]
    with (
        browser_of() as browser,
        closing(Hub(address(tmp_path), history=HISTORY)) as hub,
        Publisher(hub, RATE) as publisher,
    ):
        with site(tmp_path, *bind, HISTORY=str(HISTORY)) as server:
            server.port = port
            tabs = Tabs[Any](browser, server, 4)
            pages = tabs.fresh()
            for end in ends:
                gone = leader(pages)
                pages.remove(gone)
                end(gone)
                leader(pages)
            pages.append(tabs.open())
            settle(pages)
            away = leader(pages)
            leave(away)
            leader([tab for tab in pages if tab is not away])
            away.back()
            shows(away, "window.stream?.readyState === 1")
            settle(pages)
            blocked = leader(pages)
            block(blocked, 3)
            leader([tab for tab in pages if tab is not blocked])
            kill(server)
        with site(tmp_path, *bind, HISTORY=str(HISTORY)) as server:
            server.port = port
            settle(pages)
            finish(publisher, pages, 50)
            until_open(server, 1)
