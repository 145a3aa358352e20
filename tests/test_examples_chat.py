"""The chat of examples/chat.py, as two people in Chromium see it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.clients import Client
from tests.servers import Server, gunicorn

pytestmark = pytest.mark.ci


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    env = {"SECRET_KEY": "x" * 32, "SSEKIT_URL": f"sqlite:///{tmp_path}/chat.db"}
    with gunicorn("examples.chat:app", "--workers", "2", env=env) as running:
        yield running


def enter(browser: Browser, server: Server, name: str) -> Page:
    page = browser.new_context().new_page()
    page.goto(server.url)
    page.get_by_placeholder("Your name").fill(name)
    page.get_by_role("button").click()
    expect(page.locator("#here")).to_contain_text(name)
    return page


def test_two_people_see_each_other_come_type_speak_and_go(browser: Browser, server: Server) -> None:
    ann = enter(browser, server, "Ann")
    bob = enter(browser, server, "<b>Bob")
    for page in (ann, bob):
        expect(page.locator("#here")).to_have_text("<b>Bob, Ann")
    bob.locator("[name=text]").press_sequentially("hello")
    expect(ann.locator("#typing")).to_have_text("<b>Bob is typing ...")
    bob.keyboard.press("Enter")
    for page in (ann, bob):
        expect(page.locator("#messages li")).to_have_text(["<b>Bob: hello"])
        expect(page.locator("#typing")).not_to_contain_text("typing")
    ann.reload()
    expect(ann.locator("#messages li")).to_have_text(["<b>Bob: hello"])
    expect(ann.locator("#here")).to_have_text("<b>Bob, Ann")
    expect(ann.locator("#typing")).not_to_contain_text("typing")
    bob.close()
    expect(ann.locator("#here")).to_have_text("Ann", timeout=15_000)


def test_a_stranger_hears_nothing(server: Server) -> None:
    with Client(f"{server.url}/events") as client:
        assert client.status == 401
