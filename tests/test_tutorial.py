"""docs/tutorial.md, followed from an empty folder: each block in its order, with a page open."""

from __future__ import annotations

import os
import re
import site
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.components import need
from tests.ports import free_port
from tests.servers import ROOT
from tests.terminals import Terminal

pytestmark = pytest.mark.ci

BLOCK = re.compile(r'^```(\w+)(?: title="([^"\n]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
FILE = re.compile(r"(?:# |<!-- )([\w./]+)(?: -->)?\n")


class Tutorial:
    """Somebody who follows the page, in a folder and at ports of their own."""

    def __init__(self, folder: Path) -> None:
        need("nginx")
        need("curl")
        self._folder = folder
        self._blocks = BLOCK.findall((ROOT / "docs" / "tutorial.md").read_text())
        self._terminals: dict[str, Terminal] = {}
        self._ports = {"8000": str(free_port()), "8080": str(free_port())}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"])
        self._env = {
            **os.environ,
            "HOME": str(folder),
            "PATH": path,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]),
            "PIP_NO_INDEX": "1",
            "GUNICORN_CMD_ARGS": f"--bind 127.0.0.1:{self._ports['8000']}",
        }
        # In each environment there is what the tests' has, so that pip finds all that it is asked
        # for, and venv need not spend two seconds on a pip of its own.
        sites = "\n".join(f"site.addsitedir({name!r})" for name in site.getsitepackages())
        (folder / "sitecustomize.py").write_text(f"import site\n{sites}\n")
        (folder / "ensurepip.py").touch()

    def url(self, port: str) -> str:
        return f"http://127.0.0.1:{self._ports[port]}/"

    def follow(self, up_to: str = "") -> None:
        """Follow the next blocks, up to and with the first that has this text, or all."""
        while self._blocks:
            language, terminal, block = self._blocks.pop(0)
            self._do(language, terminal, block)
            if up_to and up_to in block:
                return
        assert not up_to, f"the tutorial goes on without {up_to!r}"

    def _do(self, language: str, terminal: str, block: str) -> None:
        for port, ours in self._ports.items():
            block = re.sub(rf"\b{port}\b", ours, block)
        if named := FILE.match(block):
            path = self._folder / "inbox" / named[1]
            path.parent.mkdir(exist_ok=True)
            # A comment before the doctype would be part of the page.
            path.write_text(block.removeprefix(named[0]) if path.suffix == ".html" else block)
            if path.name == "nginx.conf" and os.geteuid() == 0:
                # Else its workers would be "nobody", who may not write into a test's folder.
                path.write_text(f"user root;\n{block}")
        elif language == "text":
            self._terminals[terminal].shows(*filter(None, block.splitlines()))
        else:
            self._run(terminal, block)

    def _run(self, name: str, commands: str) -> None:
        if name not in self._terminals:
            log = self._folder / f"{name}.log"
            self._terminals[name] = Terminal(log, cwd=self._folder, env=self._env)
        self._terminals[name].run(commands)
        if not re.search(r"^(gunicorn|curl -N)", commands, re.MULTILINE):
            self._terminals[name].finish()

    def close(self) -> None:
        for terminal in self._terminals.values():
            terminal.close()

    def log(self, name: str) -> str:
        """All that a terminal has shown."""
        return (self._folder / f"{name}.log").read_text()


@pytest.fixture
def tutorial(tmp_path: Path) -> Iterator[Tutorial]:
    follower = Tutorial(tmp_path)
    yield follower
    follower.close()


@pytest.mark.timeout(120)
def test_the_tutorial_ends_with_a_private_page_behind_nginx(
    tutorial: Tutorial, browser: Browser
) -> None:
    page = browser.new_context().new_page()
    messages = page.locator("#messages li")

    tutorial.follow("Using worker: gevent")
    tutorial.follow("Using worker: gevent")  # the server that has the page
    page.goto(tutorial.url("8000"))
    expect(messages).to_have_text(["Hello"])
    tutorial.follow("This appears at once")
    expect(messages).to_have_text(["This appears at once", "Hello"])

    tutorial.follow("There was no server")
    expect(messages.first).to_have_text("There was no server", timeout=20_000)
    expect(messages).to_have_count(3)

    tutorial.follow("http_code")
    page.reload()
    page.locator("[name=user]").fill("ann")
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("h1")).to_have_text("Inbox of ann")
    tutorial.follow("Only for Bob")
    expect(messages).to_have_text(["Only for Ann"])
    page.get_by_role("button", name="Sign out").click()

    tutorial.follow("nginx -p")
    page.goto(tutorial.url("8080"))
    page.locator("[name=user]").fill("ann")
    page.get_by_role("button", name="Sign in").click()
    expect(messages).to_have_text(["Only for Ann"])
    tutorial.follow("Published during a deploy")
    expect(messages.first).to_have_text("Published during a deploy", timeout=20_000)
    expect(messages).to_have_count(2)
    page.context.close()
    tutorial.follow()
    tutorial.close()
    # gunicorn's own worker prints the exits of its greenlets at Ctrl-C now and then; ours does not.
    assert "Traceback" not in tutorial.log("Terminal 1").rpartition("Using worker: ssekit")[2]
