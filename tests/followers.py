"""Real clients, each driven the way its users drive it, many streams at once.

A follower takes addresses and returns for each the events that the client dispatched, as lists
``[type, data, id]``, until the data "end" or a deadline.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import httpx
import httpx_sse
import sseclient
from playwright.sync_api import Page

from ssekit import Decoder
from ssekit.client import listen
from tests.browser import chromium
from tests.components import need, need_packages
from tests.servers import ROOT

SECONDS = 60
READ = 10.0  # seconds without a byte
CLIENTS_JS = ROOT / "tests" / "clients_js"
Seen = list[list[str]]
Follower = Callable[[list[str]], list[Seen]]


def javascript(name: str, urls: list[str]) -> list[Seen]:
    need_packages(CLIENTS_JS)
    command = [need("node"), "driver.js", name, str(SECONDS)]
    ran = subprocess.run(
        command,
        cwd=CLIENTS_JS,
        input=json.dumps(urls).encode(),
        capture_output=True,
        check=False,
        timeout=SECONDS + 20,
    )
    assert ran.returncode == 0, ran.stderr.decode()
    return list(json.loads(ran.stdout))


def browser(urls: list[str]) -> list[Seen]:
    """Chromium's own EventSource, on a page of the first address's origin."""
    with chromium() as running:
        page: Page = running.new_page()
        page.goto(urls[0].replace("/stages", "/page"))
        page.evaluate((CLIENTS_JS / "follow.js").read_text())
        return list(page.evaluate(f"urls => follow(opener(EventSource), urls, {SECONDS})", urls))


def curl(urls: list[str]) -> list[Seen]:
    """One curl fetches all streams at once, and again those without their end; we decode."""
    seen: list[Seen] = [[] for _ in urls]
    last = ["" for _ in urls]
    deadline = time.monotonic() + SECONDS
    while pending := [n for n, events in enumerate(seen) if not events or events[-1][1] != "end"]:
        assert time.monotonic() < deadline, [urls[n] for n in pending]
        bodies = curl_once([(urls[n], last[n]) for n in pending])
        for n, body in zip(pending, bodies, strict=True):
            decoder = Decoder(last_event_id=last[n])
            seen[n] += [[each.event, each.data, each.id] for each in decoder.feed(body)]
            last[n] = decoder.last_event_id
    return seen


def curl_once(requests: list[tuple[str, str]]) -> list[bytes]:
    with tempfile.TemporaryDirectory(prefix="ssekit-test-") as folder:
        bodies = [Path(folder, str(number)) for number in range(len(requests))]
        transfers = []
        for (url, last), body in zip(requests, bodies, strict=True):
            transfer = f'url = "{url}"\noutput = "{body}"\nmax-time = 3\nno-buffer\nsilent\n'
            transfers.append(transfer + (f'header = "Last-Event-ID: {last}"\n' if last else ""))
        # Its exit code speaks of cut connections, which are what this is about.
        subprocess.run(
            [need("curl"), "--disable", "--parallel", "--config", "-"],
            input="next\n".join(transfers).encode(),
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=SECONDS,
        )
        return [body.read_bytes() if body.exists() else b"" for body in bodies]


def threads(one: Callable[[httpx.Client, str], Iterable[list[str]]], urls: list[str]) -> list[Seen]:
    """Some threads, a stream each, for the clients in Python."""
    deadline = time.monotonic() + SECONDS

    def in_time(request: httpx.Request) -> None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{request.url} has not sent its end")

    def until_end(url: str) -> Seen:
        seen = []
        for event in one(client, url):
            seen.append(event)
            if event[1] == "end":
                break
        return seen

    hooks = {"request": [in_time]}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    with (
        httpx.Client(limits=limits, timeout=READ, event_hooks=hooks) as client,
        ThreadPoolExecutor(16) as pool,
    ):
        return list(pool.map(until_end, urls))


def ours(client: httpx.Client, url: str) -> Iterable[list[str]]:
    with listen(url, retry=0.05, timeout=READ, client=client) as events:
        for event in events:
            yield [event.event or "", event.data, event.id or ""]


def again_and_again() -> Iterable[None]:
    """What a program writes around a client that does not connect again by itself."""
    while True:  # until the hook of `threads` or the reader of the events ends it
        yield
        time.sleep(0.02)


def with_httpx_sse(client: httpx.Client, url: str) -> Iterable[list[str]]:
    last = ""
    for _ in again_and_again():
        headers = {"Last-Event-ID": last} if last else {}
        try:
            with httpx_sse.connect_sse(client, "GET", url, headers=headers) as source:
                for event in source.iter_sse():
                    last = event.id
                    yield [event.event, event.data, event.id]
        except httpx.TransportError:
            pass  # a cut connection is what this is about


def with_sseclient_py(client: httpx.Client, url: str) -> Iterable[list[str]]:
    last = ""
    for _ in again_and_again():
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}
        with client.stream("GET", url, headers=headers) as response:
            try:
                for event in sseclient.SSEClient(chunks(response)).events():
                    last = event.id or last
                    yield [event.event, event.data, last]
            except UnicodeDecodeError:
                pass  # it decodes what a cut within a character left


def chunks(response: httpx.Response) -> Iterable[bytes]:
    with suppress(httpx.TransportError):  # as its users do who want what came before the cut
        yield from response.iter_raw()


FOLLOWERS: dict[str, Follower] = {
    "Chromium": browser,
    "curl": curl,
    "eventsource 4": partial(javascript, "eventsource-4"),
    "eventsource 5": partial(javascript, "eventsource-5"),
    "eventsource-parser": partial(javascript, "eventsource-parser"),
    "fetch-event-source": partial(javascript, "fetch-event-source"),
    "httpx-sse": partial(threads, with_httpx_sse),
    "sseclient-py": partial(threads, with_sseclient_py),
    "ssekit.client": partial(threads, ours),
}
