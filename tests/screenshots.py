"""The pictures of docs/pictures: each shows an example that runs, in Chromium.

scripts/screenshots runs this.  A picture is made by a function of `PICTURES`, which gets a browser,
a folder for the example's files, and returns the page to be shown.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from ssekit import Hub
from tests.browser import chromium
from tests.servers import ROOT, Server, gunicorn
from tests.waiting import until

FOLDER = ROOT / "docs" / "pictures"


class Stage:
    """A browser, and a folder with a hub that the examples share."""

    def __init__(self, browser: Browser, folder: Path, stack: ExitStack) -> None:
        self._browser = browser
        self._stack = stack
        self.url = f"sqlite:///{folder}/hub.db"
        self.env = {"SSEKIT_URL": self.url, "SECRET_KEY": "x" * 32, "SSEKIT_ROOM": "open"}

    def serve(self, target: str, folder: Path = ROOT / "examples") -> Server:
        """Run an example's application until the picture is made."""
        return self._stack.enter_context(gunicorn(target, "--chdir", str(folder), env=self.env))

    def run(self, name: str, *arguments: str) -> None:
        """Run an example's program until the picture is made."""
        command = [sys.executable, str(ROOT / "examples" / name), *arguments]
        environment = {**self.env, "PYTHONPATH": str(ROOT)}
        process = self._stack.enter_context(subprocess.Popen(command, env=environment))
        self._stack.callback(process.terminate)

    def visit(self, url: str, width: int, height: int) -> Page:
        """Open a page as another visitor would."""
        context = self._browser.new_context(viewport={"width": width, "height": height})
        self._stack.callback(context.close)
        page = context.new_page()
        page.goto(url)
        return page


def chat(stage: Stage) -> Page:
    """Two people in the chat; one is typing."""
    server = stage.serve("chat:app")
    pages = []
    for name in ("Ann", "Bob"):
        page = stage.visit(server.url, 420, 180)
        page.get_by_placeholder("Your name").fill(name)
        page.get_by_role("button").click()
        pages.append(page)
    ann, bob = pages
    expect(ann.locator("#here")).to_have_text("Ann, Bob")
    for page, text in ((ann, "Does anybody hear me?"), (bob, "At once.")):
        page.locator("[name=text]").fill(text)
        page.keyboard.press("Enter")
        expect(ann.locator("#messages")).to_contain_text(text)
    bob.locator("[name=text]").press_sequentially("And you?")
    expect(ann.locator("#typing")).to_contain_text("Bob is typing")
    return ann


def progress(stage: Stage) -> Page:
    """A job that is half done."""
    server = stage.serve("job_page:app")
    page = stage.visit(f"{server.url}/jobs/report", 420, 110)
    stage.run("job.py", "report", "40")
    page.wait_for_function("bar.value >= 20")
    return page


def dashboard(stage: Stage) -> Page:
    """The five metrics."""
    stage.run("dashboard.py")
    with Hub(stage.url) as hub:
        until(lambda: len(hub.state("metrics")) == 5, 20)
    page = stage.visit(stage.serve("dashboard:app").url, 420, 200)
    expect(page.locator("tr")).to_have_count(5)
    return page


def tokens(stage: Stage) -> Page:
    """An answer on its way."""
    page = stage.visit(stage.serve("tokens:app").url, 420, 180)
    page.locator("[name=question]").fill("Why is the sky blue?")
    page.get_by_role("button", name="Ask").click()
    page.wait_for_function("answer.textContent.length > 60")
    return page


def demo(stage: Stage) -> Page:
    """The page of the demo application, with its streams live."""
    server = stage.serve("wsgi:app", ROOT)
    page = stage.visit(server.url, 900, 700)
    expect(page.get_by_text("4 of 6 connections")).to_be_visible()
    return page


PICTURES: dict[str, Callable[[Stage], Page]] = {
    function.__name__: function for function in (chat, progress, dashboard, tokens, demo)
}


def main(names: list[str]) -> None:
    FOLDER.mkdir(exist_ok=True)
    for name in names or PICTURES:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            stage = Stage(stack.enter_context(chromium()), folder, stack)
            page = PICTURES[name](stage)
            # An article has no room for the margins of a page.
            narrow = "body { margin: 1rem !important }" if name != "demo" else ""
            page.screenshot(path=FOLDER / f"{name}.png", caret="hide", style=narrow)
        print(FOLDER / f"{name}.png")


if __name__ == "__main__":
    main(sys.argv[1:])
