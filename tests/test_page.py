"""The page in headless Chromium, with the seeds' streams live; the five seeds by their names."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Page, Route, expect

from ssekit.demo.room import link_key
from tests.cable import cable
from tests.clients import Client
from tests.ports import free_port
from tests.servers import Server, gunicorn
from tests.test_app import status_of
from tests.waiting import until


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Server]:
    """Another site, whose pages read our streams."""
    with gunicorn("tests.apps.elsewhere:app") as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, elsewhere: Server) -> Iterator[Server]:
    origins = f"https://www.example {allowed(elsewhere)}"
    with served(tmp_path_factory.mktemp("hub"), SSEKIT_ORIGINS=origins) as running:
        yield running


def allowed(elsewhere: Server) -> str:
    """The other site's origin under its allowed name; its ``url`` is another one."""
    return elsewhere.url.replace("127.0.0.1", "localhost")


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    made = browser.new_context(viewport={"width": 1280, "height": 900})
    yield made
    made.close()


@contextmanager
def served(folder: Path, *options: str, **env: str) -> Iterator[Server]:
    settings = {
        "SSEKIT_URL": f"sqlite:///{folder}/hub.db",
        "SSEKIT_ROOM": "open",
        "SSEKIT_SECRET": "s",
        **env,
    }
    with gunicorn("wsgi:app", *options, env=settings) as running:
        yield running


@contextmanager
def watched(page: Page, url: str) -> Iterator[Page]:
    """Open the page; fail at the end if it complained, or asked any other host for anything."""
    problems: list[str] = []
    site = url.partition("?")[0]
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "console",
        lambda message: problems.append(message.text) if message.type == "error" else None,
    )
    page.on(
        "request",
        lambda asked: None if asked.url.startswith(site) else problems.append(asked.url),
    )
    page.goto(url)
    yield page
    assert problems == []


def fulfil(route: Route, body: str) -> None:
    """Answer a stream's request in the server's place."""
    route.fulfill(status=200, content_type="text/event-stream", body=body)


def states(page: Page) -> list[str]:
    return page.locator("[data-part=state]").all_inner_texts()


def streams(server: Server, count: int) -> None:
    """Wait until the server has so many streams open."""
    until(lambda: status_of(server.url)["streams"] == count, 15, f"{count} open streams")


# The seeds.


def test_seed_004_the_php_loop_with_its_page(server: Server, context: BrowserContext) -> None:
    with watched(context.new_page(), server.url) as page:
        assert page.evaluate("typeof EventSource") != "undefined"
        clock = page.locator(".clock")
        expect(clock.locator("[data-part=state]")).to_have_text("open")  # onopen
        clock.locator("[name=interval]").select_option("1")
        # onmessage: the JSON's id and message, into #result.
        line = re.compile(r"\d{10}:Welcome, it is \d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
        expect(page.locator("#result p").nth(2)).to_contain_text(line)
        clock.locator("[name=credentials]").check()  # withCredentials
        expect(page.locator("#result p").nth(4)).to_contain_text(line)
        expect(clock.locator("[data-part=state]")).to_have_text("open")


def test_seed_004_the_full_message_format_reaches_a_browser(
    server: Server, context: BrowserContext
) -> None:
    page = context.new_page()
    page.goto(f"{server.url}/icon.svg")
    body = (
        "id: msg1\nevent: foo\nretry: 10000\n"
        "data: some text\ndata: another message\ndata: with two lines \n\n"
    )
    page.route("**/format", lambda route: fulfil(route, body))
    found = page.evaluate(
        """() => new Promise((resolve) => {
            const source = new EventSource("/format");
            source.addEventListener("foo", (event) => {
                source.close();
                resolve([event.type, event.lastEventId, event.data]);
            });
        })"""
    )
    assert found == ["foo", "msg1", "some text\nanother message\nwith two lines "]


def test_seed_004_null_is_nothing_new_and_an_error_reconnects(
    server: Server, context: BrowserContext
) -> None:
    page = context.new_page()
    asked: list[str] = []

    def answer(route: Route) -> None:
        asked.append(route.request.url)
        message = json.dumps({"id": len(asked), "message": "new"})
        fulfil(route, f"retry: 100\ndata: null\n\ndata: {message}\n\n")

    page.route("**/clock", answer)
    page.goto(server.url)
    # Each answer ends at once: onerror, and the browser comes back.
    result = page.locator("#result p")
    expect(result.nth(2)).to_contain_text("3:new")
    assert "null" not in page.locator("#result").inner_text()
    reconnects = page.locator(".clock [data-part=reconnects]")
    assert int(reconnects.inner_text()) >= 2


def test_seed_004_a_message_from_another_origin_is_not_taken(
    server: Server, elsewhere: Server, browser: Browser
) -> None:
    # A redirect is how a message comes from another origin than was asked; the page's own
    # Content-Security-Policy would not even let it follow.
    with browser.new_context(bypass_csp=True) as context:
        page = context.new_page()
        arrived: list[str] = []
        page.on("response", lambda answer: arrived.append(answer.url))
        headers = {"Location": f"{elsewhere.url}/stream", "Access-Control-Allow-Origin": "*"}
        page.route("**/clock", lambda route: route.fulfill(status=307, headers=headers))
        page.goto(server.url)
        until(lambda: page.title() and arrived.count(headers["Location"]) > 2, what="redirects")
        expect(page.locator("#result p")).to_have_count(0)
        expect(page.locator(".clock [data-part=events]")).to_have_text("0")


def test_seeds_000_002_and_003_hello_every_two_seconds_or_ok(
    server: Server, context: BrowserContext
) -> None:
    with watched(context.new_page(), server.url) as page:
        hello = page.locator(".hello")
        expect(hello.locator(".log p")).to_contain_text("hello", timeout=8000)
        expect(hello.locator("[data-part=last-id]")).to_have_text("1")
        page.locator("#ask").click()
        expect(hello.locator(".answer")).to_contain_text("ok")
        # The raw bytes are Workerman's event, whatever the order of its fields.
        hello.locator("[data-part=raw]").check()
        log = hello.locator(".log")
        expect(log).to_contain_text("content-type: text/event-stream", ignore_case=True)
        expect(log).to_contain_text("event: message\ndata: hello\nid: 1\n\n", timeout=8000)


@pytest.mark.parametrize("seed", ["000", "001", "002", "003"])
def test_seeds_000_to_003_the_timer_ends_with_its_connection(server: Server, seed: str) -> None:
    streams(server, 0)
    with Client(f"{server.url}/hello", headers={"Accept": "text/event-stream"}):
        streams(server, 1)
    streams(server, 0)


def read_from(page: Page, site: str, url: str, *, credentials: bool) -> None:
    query = {"url": url, **({"credentials": ""} if credentials else {})}
    page.goto(f"{site}/?{urlencode(query)}")


def test_seed_001_an_allowed_origin_reads_across_origins(
    server: Server, elsewhere: Server, context: BrowserContext
) -> None:
    pages = [context.new_page(), context.new_page()]
    for page, credentials in zip(pages, (False, True), strict=True):
        read_from(page, allowed(elsewhere), f"{server.url}/hello", credentials=credentials)
    for page, credentials in zip(pages, (False, True), strict=True):
        # What a browser tells about the origin is where the stream came from.
        expect(page.locator("#result")).to_contain_text(f"{server.url} hello", timeout=8000)
        # The same page under another name is another origin, and not on the list.
        read_from(page, elsewhere.url, f"{server.url}/hello", credentials=credentials)
        expect(page.locator("#state")).to_have_text("refused")
        expect(page.locator("#result")).to_have_text("")


def test_seed_001_credentials_are_sent_to_allowed_origins_only(
    elsewhere: Server, context: BrowserContext
) -> None:
    env = {"ORIGINS": elsewhere.url}
    with gunicorn("tests.apps.credentials:app", env=env) as server:
        page = context.new_page()
        page.goto(f"{server.url}/login")
        for path, credentials, seen in [
            ("/named", True, "cookie ada"),
            ("/named", False, "cookie none"),
            ("/anybody", False, "cookie none"),
        ]:
            read_from(page, elsewhere.url, server.url + path, credentials=credentials)
            expect(page.locator("#result")).to_have_text(f"{server.url} {seen}")
        # For all origins is never with credentials, whatever the seed's headers hoped for.
        read_from(page, elsewhere.url, f"{server.url}/anybody", credentials=True)
        expect(page.locator("#state")).to_have_text("refused")
        expect(page.locator("#result")).to_have_text("")


def test_seed_001_a_preflight_is_answered(
    server: Server, elsewhere: Server, context: BrowserContext
) -> None:
    page = context.new_page()
    page.goto(f"{allowed(elsewhere)}/?url=/nothing")
    ask = """async (url) => {
        const headers = { "Last-Event-ID": "41", Authorization: "Bearer x" };
        const answer = await fetch(url, { headers, credentials: "include" });
        const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
        let text = "";
        while (!text.includes("\\n\\n")) text += (await reader.read()).value;
        return text;
    }"""
    assert "data: 42\nid: 42\n" in page.evaluate(ask, f"{server.url}/scripts/count.py")


# The page.


def test_the_page_shows_every_stream_live_and_counts_them(
    server: Server, context: BrowserContext
) -> None:
    streams(server, 0)
    with watched(context.new_page(), server.url) as page:
        expect(page.locator("#open-streams")).to_have_text("4")
        assert states(page) == ["open"] * 4
        page.locator("[name=script]").select_option("count.py")
        script = page.locator(".script")
        expect(script.locator(".log p").last).to_contain_text("3")
        # Stopped, nothing comes; started again, it goes on where it was.
        script.locator("[data-part=toggle]").click()
        expect(script.locator("[data-part=state]")).to_have_text("closed")
        streams(server, 3)
        expect(page.locator("#open-streams")).to_have_text("3")
        last = int(script.locator("[data-part=last-id]").inner_text())
        count = script.locator(".log p").count()
        script.locator("[data-part=toggle]").click()
        expect(script.locator(".log p").nth(count)).to_contain_text(str(last + 1))
    context.close()
    streams(server, 0)


@pytest.mark.parametrize("width", [360, 820, 1400])
def test_the_page_fits_its_window(server: Server, browser: Browser, width: int) -> None:
    with browser.new_context(viewport={"width": width, "height": 800}) as context:
        page = context.new_page()
        page.goto(server.url)
        for summary in page.locator("summary").all():
            summary.click()
        expect(page.locator("#open-streams")).to_have_text(re.compile(r"\d"))
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_two_windows_share_their_connections_and_say_which_window_has_them(
    server: Server, context: BrowserContext
) -> None:
    one, two = context.new_page(), context.new_page()
    one.goto(server.url)
    expect(one.locator("#open-streams")).to_have_text("4")
    with watched(two, server.url):
        until(lambda: states(two) == ["open"] * 4, what="all streams of the second window")
        streams(server, 4)
        expect(two.locator("#meter-label")).to_have_text("4 of 6 connections carry streams")
        for place in (".clock", ".hello", ".script", "#room"):
            sharing = f"{place} [data-part=sharing]"
            expect(one.locator(sharing)).to_have_text("leader, 2 tabs")
            expect(two.locator(sharing)).to_have_text("follower, 2 tabs")
        write(two, "from the second window")
        expect(one.locator(".message")).to_contain_text("from the second window")
        expect(two.locator(".message")).to_contain_text("from the second window")
        # What one window gives back, the other has at once.
        one.close()
        expect(two.locator("#room [data-part=sharing]")).to_have_text("leader")
        until(lambda: states(two) == ["open"] * 4, what="all streams of the second window")
        streams(server, 4)


HIDE = """
    let hidden = false;
    Object.defineProperty(document, "hidden", { get: () => hidden });
    window.hide = (value) => {
        hidden = value;
        document.dispatchEvent(new Event("visibilitychange"));
    };
"""


def test_a_hidden_tab_releases_its_connections_and_catches_up(
    server: Server, context: BrowserContext
) -> None:
    context.add_init_script(HIDE)
    with watched(context.new_page(), server.url) as page:
        expect(page.locator("#open-streams")).to_have_text("4")
        page.evaluate("hide(true)")
        assert states(page) == ["paused"] * 4
        streams(server, 0)
        other = context.new_page()
        other.goto(server.url)
        expect(other.locator("#room [data-part=state]")).to_have_text("open")
        write(other, "while you were away")
        expect(other.locator(".message")).to_contain_text("while you were away")
        other.close()
        page.evaluate("hide(false)")
        expect(page.locator(".message.missed")).to_contain_text("while you were away")
        until(lambda: states(page) == ["open"] * 4, what="all streams again")


# The room.


def write(page: Page, text: str, name: str = "Ada") -> None:
    page.locator("#say [name=name]").fill(name)
    page.locator("#say [name=text]").fill(text)
    page.locator("#say button").click()
    expect(page.locator("#say [name=text]")).to_have_value("")


def messages(page: Page) -> list[str]:
    return page.locator(".message span").all_inner_texts()


def test_the_room_across_two_workers_misses_nothing(browser: Browser, tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "2") as server, cable(server.port) as wire:
        until(lambda: len(server.children()) == 2, what="two workers")
        workers = server.children()
        with browser.new_context() as ones, browser.new_context() as twos:
            one, two = ones.new_page(), twos.new_page()
            for page, url, other in [(one, wire.url, workers[1]), (two, server.url, workers[0])]:
                # While the other worker is stopped, this page's streams can only be here.
                os.kill(other, signal.SIGSTOP)
                try:
                    page.goto(url)
                    expect(page.locator("#room .note")).to_contain_text("Joined")
                finally:
                    os.kill(other, signal.SIGCONT)
            write(one, "can you hear me?", "Ada")
            write(two, "yes", "Grace")
            for page in (one, two):
                expect(page.locator(".message").nth(1)).to_contain_text("yes")
                expect(page.locator("#room [data-part=here]")).to_have_text("Ada, Grace")

            wire.cut()
            expect(one.locator(".note.lost")).to_contain_text("Connection lost")
            for number in range(5):
                write(two, f"missed {number}", "Grace")
            expect(two.locator(".message").nth(6)).to_contain_text("missed 4")
            assert messages(one) == ["can you hear me?", "yes"]
            wire.mend()
            expect(one.locator(".note.back").last).to_contain_text(
                "caught up on 5 messages", timeout=15_000
            )
            write(one, "I am back", "Ada")
            wanted = ["can you hear me?", "yes", *(f"missed {n}" for n in range(5)), "I am back"]
            for page in (one, two):
                expect(page.locator(".message").nth(7)).to_contain_text("I am back")
                assert messages(page) == wanted
                expect(page.locator(".note.reset")).to_have_count(0)
            ids = [message.get_attribute("data-id") for message in one.locator(".message").all()]
            assert len(set(ids)) == 8


def test_the_room_says_when_history_is_lost_and_shows_text_as_text(
    server: Server, context: BrowserContext
) -> None:
    events = [
        'event: stream-reset\ndata: {"reason":"history-lost"}\nid: 7-1',
        'data: {"name":"<i>Eve</i>","text":"<img src=x onerror=alert(1)>"}\nid: 7-2',
        "data: not json\nid: 7-3",
        'data: {"name":5}\nid: 7-4',
    ]
    page = context.new_page()
    page.route("**/room/events?*", lambda route: fulfil(route, "\n\n".join([*events, ""]) + "\n"))
    page.goto(server.url)
    expect(page.locator(".note.reset")).to_contain_text("History lost")
    assert messages(page)[:3] == ["<img src=x onerror=alert(1)>", "not json", '{"name":5}']
    expect(page.locator("#announce")).to_contain_text("messages are lost")


def test_a_closed_room_can_be_read_and_says_so(browser: Browser, tmp_path: Path) -> None:
    with (
        served(tmp_path, SSEKIT_ROOM="off", SSEKIT_TOKEN="t") as server,
        browser.new_context() as context,
        watched(context.new_page(), server.url) as page,
    ):
        expect(page.locator("#room-closed")).to_be_visible()
        expect(page.locator("#say")).to_be_hidden()
        expect(page.locator("#room .note")).to_contain_text("Joined")
        body = json.dumps({"channel": "room", "data": "from a program"}).encode()
        headers = {"Authorization": "Bearer t", "Content-Type": "application/json"}
        with Client(f"{server.url}/publish", method="POST", headers=headers, body=body) as sent:
            assert sent.status == 201
        expect(page.locator(".message")).to_contain_text("from a program")


def test_a_name_that_is_given_while_the_room_connects_is_the_one_shown(
    browser: Browser, tmp_path: Path
) -> None:
    asked: list[Route] = []

    def hold_first(route: Route) -> None:
        asked.append(route)
        if len(asked) > 1:
            route.continue_()

    with served(tmp_path) as server, browser.new_context() as context:
        page = context.new_page()
        page.route("**/room/events?*", hold_first)
        page.goto(server.url)
        page.wait_for_function("document.querySelector('#room').dataset.state === 'connecting'")
        while not asked:
            page.wait_for_timeout(10)
        page.locator("#say [name=name]").fill("Grace", force=True)
        page.locator("#say [name=name]").dispatch_event("change")
        with suppress(Error):  # It is no longer wanted.
            asked[0].continue_()
        expect(page.locator("#room [data-part=here]")).to_have_text("Grace")


def test_the_link_of_the_operator_opens_the_room(browser: Browser, tmp_path: Path) -> None:
    with (
        served(tmp_path, SSEKIT_ROOM="link", SSEKIT_SECRET="of the operator") as server,
        browser.new_context() as context,
    ):
        key = link_key(b"of the operator")
        with watched(context.new_page(), f"{server.url}/?key={key}") as page:
            write(page, "from the link", "Ada")
            expect(page.locator(".message")).to_contain_text("from the link")
            with context.expect_page() as opened:
                page.locator("#second").click()
            write(opened.value, "from a second window", "Grace")
            expect(page.locator(".message").nth(1)).to_contain_text("from a second window")
            for window in (page, opened.value):  # of one visitor
                expect(window.locator("#room [data-part=here]")).to_have_text("Grace")
                expect(window.locator("#say [name=name]")).to_have_value("Grace")
        with watched(context.new_page(), server.url) as page:
            expect(page.locator("#room-closed")).to_be_visible()
            expect(page.locator("#say")).to_be_hidden()


def test_a_message_that_is_refused_stays_in_its_field(
    server: Server, context: BrowserContext
) -> None:
    page = context.new_page()
    refusal: dict[str, Any] = {"status": 429, "json": {"error": "That was too fast."}}
    page.route("**/room", lambda route: route.fulfill(**refusal))
    page.goto(server.url)
    page.locator("#say [name=text]").fill("again")
    page.locator("#say button").click()
    expect(page.locator("#problem")).to_have_text("Not sent: That was too fast.")
    expect(page.locator("#say [name=text]")).to_have_value("again")


def test_the_page_reconnects_when_its_server_is_back(browser: Browser, tmp_path: Path) -> None:
    port = free_port()
    bind = ["--bind", f"127.0.0.1:{port}"]
    with browser.new_context() as context:
        page = context.new_page()
        with served(tmp_path, *bind):
            page.goto(f"http://127.0.0.1:{port}/")
            until(lambda: states(page) == ["open"] * 4, what="all streams")
        until(lambda: states(page) == ["reconnecting"] * 4, what="all streams to be lost")
        with served(tmp_path, *bind):
            until(lambda: states(page) == ["open"] * 4, 20, "all streams again")
            expect(page.locator(".note.reset")).to_have_count(0)
