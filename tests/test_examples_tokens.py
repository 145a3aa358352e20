"""examples/tokens.py with what reads it: Chromium, npm's `ai` and the `openai` package."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from playwright.sync_api import Page, expect

from tests.cable import cable
from tests.clients import Client
from tests.components import need, need_packages
from tests.servers import ROOT, Server, gunicorn
from tests.waiting import until

pytestmark = pytest.mark.ci

CLIENTS_JS = ROOT / "tests" / "clients_js"


@contextmanager
def served(folder: Path, pause: float) -> Iterator[Server]:
    """Two workers with the example, whose model waits before each word."""
    env = {"SSEKIT_URL": f"sqlite:///{folder}/hub.db", "PAUSE": str(pause)}
    options = ("--workers", "2", "--chdir", str(ROOT / "examples"))
    with gunicorn("tokens_api:app", *options, env=env) as server:
        yield server


def ask(page: Page, server: Server, question: str) -> None:
    page.goto(server.url)
    page.get_by_placeholder("Ask something").fill(question)
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("#answer")).to_contain_text("you asked", timeout=15_000)


def second_tab(page: Page) -> Page:
    tab = page.context.new_page()
    tab.goto(page.url)
    return tab


def test_an_answer_goes_on_while_its_page_is_reloaded_and_in_a_second_tab(
    tmp_path: Path, page: Page
) -> None:
    with served(tmp_path, 0.1) as server:
        ask(page, server, "Why?")
        page.reload()
        tab = second_tab(page)
        for one in (page, tab):
            expect(one.get_by_role("status")).to_have_text("finished", timeout=30_000)
            expect(one.locator("#answer")).to_have_text(
                re.compile("^“Why?”, you asked, .* once and in order. $".replace("?", r"\?"))
            )
        assert page.locator("#answer").inner_text() == tab.locator("#answer").inner_text()
        tab.reload()
        expect(tab.get_by_role("status")).to_have_text("finished", timeout=30_000)
        expect(tab.locator("#answer")).to_have_text(page.locator("#answer").inner_text())


def test_stop_in_one_tab_ends_the_answer_in_all(tmp_path: Path, page: Page) -> None:
    with served(tmp_path, 0.5) as server:
        ask(page, server, "Why?")
        tab = second_tab(page)
        tab.get_by_role("button", name="Stop").click()
        for one in (page, tab):
            expect(one.get_by_role("status")).to_have_text("cancelled", timeout=15_000)
        assert "in order" not in page.locator("#answer").inner_text()


def test_a_page_is_told_that_the_worker_of_its_answer_was_killed(
    tmp_path: Path, page: Page
) -> None:
    with served(tmp_path, 1) as server:
        ask(page, server, "Why?")
        for worker in server.children():
            os.kill(worker, signal.SIGKILL)
        expect(page.get_by_role("status")).to_have_text("lost", timeout=40_000)


def test_an_answer_that_does_not_exist_is_a_404(tmp_path: Path) -> None:
    with served(tmp_path, 0) as server:
        for answer in ("none", "%00", "a%20b"):
            with Client(f"{server.url}/answers/{answer}/events") as client:
                assert client.status == 404


class Chat:
    """A chat of npm's `ai`, which obeys `order` and whose states are read as they come."""

    def __init__(self, url: str) -> None:
        need_packages(CLIENTS_JS)
        self.states: list[dict[str, Any]] = []
        self._process = subprocess.Popen(
            [need("node"), CLIENTS_JS / "chat.mjs", url, "a-chat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Chat:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._reader.join()
        with self._process:
            pass

    def order(self, line: str) -> None:
        assert self._process.stdin is not None
        self.states.clear()
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def text(self) -> str:
        """Return all text of the answer, in however many parts and messages."""
        messages = self.states[-1]["messages"] if self.states else []
        return "|".join("|".join(texts) for role, *texts in messages if role == "assistant")

    def until(self, status: str) -> str:
        until(lambda: self.states and self.states[-1]["status"] == status, 30, status)
        return self.text()

    def until_text(self, words: str) -> None:
        until(lambda: words in self.text(), 30, words)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.states.append(json.loads(line))


def test_npm_ai_resumes_an_answer_that_was_cut_from_its_first_part(tmp_path: Path) -> None:
    with served(tmp_path, 0.15) as server, cable(server.port) as line, Chat(line.url) as chat:
        chat.order("send Why?")
        chat.until_text("and nobody")
        line.cut()
        cut = chat.until("error")
        assert cut.startswith("“Why?”, you asked")
        assert "in order" not in cut
        line.mend()
        chat.order("resume")
        resumed = chat.until("ready")
        assert resumed.startswith("“Why?”, you asked")
        assert resumed.endswith("once and in order. ")
        assert resumed.count("you asked") == 1
        chat.order("resume")  # Nothing runs any more.
        assert chat.until("ready") == resumed
        with Client(f"{server.url}/api/chat/a-chat/stream") as client:
            assert client.status == 204
        with Client(f"{server.url}/api/chat/another/stream") as client:
            assert client.status == 204


def completion(server: Server) -> openai.Stream[Any]:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    question = {"role": "user", "content": "Why?"}
    stream = client.chat.completions.create(model="words", messages=[question], stream=True)  # type: ignore[list-item]
    assert isinstance(stream, openai.Stream)
    return stream


def test_openais_client_and_a_page_read_the_same_answer(tmp_path: Path) -> None:
    with served(tmp_path, 0.05) as server:
        with completion(server) as stream:
            chunks = list(stream)
        assert chunks[-1].choices[0].finish_reason == "stop"
        said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert said.startswith("“Why?”, you asked")
        with Client(f"{server.url}/answers/{chunks[0].id}/events") as client:
            client.until_end()
    data = [json.loads(event.data) for event in client.events if event.data.startswith('{"type"')]
    assert "".join(part.get("delta", "") for part in data) == said


def test_openais_client_reads_an_answer_that_was_stopped_to_its_end(tmp_path: Path) -> None:
    with served(tmp_path, 0.2) as server, completion(server) as stream:
        first = next(stream)
        while not next(stream).choices[0].delta.content:
            pass
        httpx.post(f"{server.url}/answers/{first.id}/stop")
        assert all(chunk.choices[0].finish_reason is None for chunk in stream)


def test_openais_client_is_cut_off_where_the_server_ends_early(tmp_path: Path) -> None:
    with served(tmp_path, 1) as server, completion(server) as stream:
        while next(stream).choices[0].delta.content is None:
            pass
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises((httpx.RemoteProtocolError, openai.APIConnectionError)):
            list(stream)
