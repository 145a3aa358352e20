"""ssekit.js in htmx, in Turbo and in LaunchDarkly's contract tests, and what its docs say."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any
from urllib.request import Request, urlopen

import pytest

from tests import situations
from tests.components import need
from tests.remote import chromium
from tests.scripted import STREAM, Scripted, hold
from tests.servers import ROOT
from tests.situations import CLIENTS, SITUATIONS, Run
from tests.waiting import until

pytestmark = pytest.mark.browser

DOCS = (ROOT / "docs" / "browser.md").read_text()


def test_htmx_and_turbo_come_back_and_stop_with_it() -> None:
    script = situations.bundle()
    names = ["htmx with ssekit.js", "Turbo with ssekit.js"]
    deploy, ended = (
        next(one for one in SITUATIONS if one.name.startswith(start))
        for start in ("a 502 later", "204 later")
    )
    with chromium(need("chromium")) as browser, ExitStack() as stack:
        stopping = [stack.enter_context(Run(browser, name, script, ended)) for name in names]
        resuming = [stack.enter_context(Run(browser, name, script, deploy)) for name in names]
        for run in resuming:
            until(lambda run=run: run.judged() == "resumes", 20, "the stream after a 502")
        for run in stopping:
            until(lambda run=run: len(run.site.tries) > 1, 20, "a try that is answered 204")
        # Both clients would have tried again by now: htmx 0.5 s after an error.
        time.sleep(1.5)
        assert [run.judged() for run in stopping] == ["stops", "stops"]


def test_the_table_in_the_docs_is_of_these_situations_and_versions() -> None:
    rows = [line.strip("| ").split(" | ") for line in DOCS.splitlines() if line.startswith("| ")]
    names = [row[0] for row in rows]
    assert [name for name in names if name in {one.name for one in SITUATIONS}] == [
        one.name for one in SITUATIONS
    ]
    heading = next(row for row in rows if row[0].startswith("ssekit.js"))
    versions = situations.versions()
    for column, name in zip(heading, CLIENTS, strict=True):
        assert column.startswith(name)
        assert column.endswith(versions.get(name, ""))


def test_the_docs_name_every_option() -> None:
    types = (ROOT / "ssekit" / "browser" / "ssekit.d.ts").read_text()
    options = re.search(r"export type Options = \{(.*?)\n\};", types, re.DOTALL)
    assert options is not None
    names = set(re.findall(r"^    (\w+)\?:", options[1], re.MULTILINE))
    table = DOCS.partition("### Options")[2].partition("###")[0]
    assert names == {
        name
        for row in re.findall(r"^\| (`.*?) \|", table, re.M)
        for name in re.findall(r"`(\w+)`", row)
    }


@contextmanager
def harness() -> Iterator[tuple[str, Queue[tuple[str, Any]]]]:
    """What LaunchDarkly's harness listens with: the numbers and messages of the callbacks."""
    told: Queue[tuple[str, Any]] = Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.put((self.path.rpartition("/")[2], json.loads(body)))
            self.send_response(202)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/callbacks", told
    finally:
        server.shutdown()
        server.server_close()


def ask(method: str, url: str, message: object = None) -> Any:
    data = None if message is None else json.dumps(message).encode()
    with urlopen(Request(url, data, method=method), timeout=10) as answer:
        return answer.headers["Location"], answer.read()


@contextmanager
def contract_service() -> Iterator[str]:
    program: Path = ROOT / "tests" / "clients_js" / "contract_service.mjs"
    command = [need("node"), program, "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        try:
            yield url
        finally:
            ask("DELETE", url)
            assert process.wait(10) == 0


def test_the_contract_service_speaks_the_harness_protocol() -> None:
    stream = STREAM + b": hello\n\nevent: put\ndata: 1\nid: a\n\n:again\ndata: 2\n\n"
    with (
        Scripted([hold(stream)]) as source,
        harness() as (callbacks, told),
        contract_service() as url,
    ):
        assert "restart" in json.loads(ask("GET", url)[1])["capabilities"]
        asked = {"streamUrl": source.url, "callbackUrl": callbacks, "headers": {"x-own": "1"}}
        location, _ = ask("POST", url, {**asked, "initialDelayMs": 0, "lastEventId": "z"})
        ask("POST", url + location, {"command": "listen", "listen": {"type": "put"}})
        messages = [told.get(timeout=10) for _ in range(4)]
        ask("POST", url + location, {"command": "restart"})
        assert told.get(timeout=10)[1]["comment"] == " hello"
        ask("DELETE", url + location)
        first, second = source.requests[:2]
    assert [number for number, _ in messages] == ["1", "2", "3", "4"]
    assert [message.get("comment") or message["event"] for _, message in messages] == [
        " hello",
        {"type": "put", "data": "1", "id": "a"},
        "again",
        {"type": "message", "data": "2", "id": "a"},
    ]
    assert (first.last_event_id, second.last_event_id) == ("z", "a")
    assert first.headers["X-Own"] == "1"
