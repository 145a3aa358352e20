"""Headless Chromium, as a person has it: a fresh profile, and nothing else going on in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

from tests.components import need
from tests.remote import OPTIONS


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run Chromium until the block ends; each context of it is a visitor of its own."""
    path = need("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=OPTIONS)
        try:
            yield browser
        finally:
            browser.close()
