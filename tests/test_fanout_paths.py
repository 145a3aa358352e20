"""A hub's streams by other ways: behind nginx, with TLS, in threads, and to a host that is gone."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from ssekit import Hub
from ssekit.host.tcp import STALL
from tests.clients import Client
from tests.commands import program
from tests.components import need
from tests.curl import Curl
from tests.ports import free_port
from tests.proxies import certificate_files, nginx, open_folder
from tests.servers import ROOT, Server, gunicorn
from tests.test_fanout import APP, inside, publish, texts
from tests.waiting import until

SITE = """
server {{
    listen 127.0.0.1:{port};
    location / {{
        proxy_pass http://127.0.0.1:{upstream};
        proxy_http_version {version};
        proxy_set_header Connection "";
    }}
}}
"""


@contextmanager
def behind_nginx(server: Server, version: str) -> Iterator[Server]:
    port = free_port()
    with open_folder() as folder:
        site = SITE.format(port=port, upstream=server.port, version=version)
        with nginx(site, port, folder) as front:
            yield front


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_behind_nginx_viewers_are_taken_over_and_lose_nothing(version: str) -> None:
    with gunicorn(APP) as server, behind_nginx(server, version) as front:
        with Client(front.url) as one, Client(front.url) as two:
            one.wait(1)
            two.wait(1)
            until(lambda: inside(server)[0] == 2)
            publish(server, "first", "second")
            for client in (one, two):
                client.wait(3)
                assert texts(client) == ["first", "second"]
            one.close()
            until(lambda: inside(server)[0] == 1)
            server.stop()
            two.until_closing_retry()


def test_behind_nginx_viewers_who_come_back_all_at_once_get_everything_once() -> None:
    with gunicorn(APP) as server, behind_nginx(server, "1.1") as front, ExitStack() as stack:
        with Client(front.url) as client:
            client.wait(1)  # From now on the process follows its log.
        first, *_ = publish(server, *(str(number) for number in range(100)))
        request = f"GET / HTTP/1.1\r\nHost: x\r\nLast-Event-ID: {first}\r\n\r\n"
        viewers = [
            stack.enter_context(closing(socket.create_connection(("127.0.0.1", front.port), 30)))
            for _ in range(300)
        ]
        for viewer in viewers:
            viewer.sendall(request.encode())
        publish(server, "live")
        for viewer in viewers:
            answer = body = b""
            while b"data: live\n" not in body:
                answer += viewer.recv(65536)
                body = re.sub(rb"\r\n[0-9a-f]+\r\n", b"", answer)  # the borders of chunks
            assert answer.startswith(b"HTTP/1.1 200")
            sent = re.findall(rb"^data: (\w+)$", body, re.MULTILINE)
            assert sent == [b"%d" % number for number in range(1, 100)] + [b"live"]


def test_with_tls_in_gunicorn_a_stream_is_iterated(tmp_path: Path) -> None:
    files = certificate_files(tmp_path)
    options = ["--certfile", files["certificate"], "--keyfile", files["key"]]
    url = f"sqlite:///{tmp_path}/hub.db"
    with gunicorn(APP, *options, env={"HUB": url}) as server:
        with Curl(server.url.replace("http:", "https:"), version="1.1") as client:
            client.wait(1)
            with closing(Hub(url)) as hub:
                for number in range(10):
                    hub.publish("news", number)
            assert [event.data for event in client.wait(11)[1:]] == [str(n) for n in range(10)]
        until(lambda: "ended='client disconnected'" in server.log)


def test_gthread_viewers_get_every_event() -> None:
    with gunicorn(APP, "--threads", "8", worker="gthread") as server:
        with Client(server.url) as one, Client(f"{server.url}/flask/") as two:
            one.wait(1)
            two.wait(1)
            publish(server, "first", "second")
            for client in (one, two):
                client.wait(3)
                assert texts(client) == ["first", "second"]
                client.until_body(b"\n\n:\n:\n")


@contextmanager
def two_hosts() -> Iterator[tuple[str, str]]:
    """Two network namespaces with a cable between them: 10.99.0.1 and 10.99.0.2."""
    need("ip")
    one, two = f"ssekit-{os.getpid()}-a", f"ssekit-{os.getpid()}-b"
    made = subprocess.run(["ip", "netns", "add", one], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"may not make network namespaces: {made.stderr.decode().strip()}")
    try:
        ip("netns", "add", two)
        ip("-n", one, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", two)
        for number, name in enumerate((one, two), 1):
            ip("-n", name, "addr", "add", f"10.99.0.{number}/24", "dev", "cable")
            for device in ("cable", "lo"):
                ip("-n", name, "link", "set", device, "up")
        yield one, two
    finally:
        for name in (one, two):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@pytest.mark.parametrize("busy", [False, True])
def test_a_host_that_vanishes_is_dropped_10_seconds_after_its_last_answer(
    tmp_path: Path, busy: bool
) -> None:
    beat = 1.0
    url = f"sqlite:///{tmp_path}/hub.db"
    with two_hosts() as (one, two), ExitStack() as stack:
        log = stack.enter_context((tmp_path / "log").open("wb"))
        command = ["ip", "netns", "exec", one, sys.executable, "-m", "gunicorn"]
        command += ["--config", "/dev/null", "-k", "gevent", "--bind", "10.99.0.1:8000", APP]
        server = subprocess.Popen(
            command, cwd=ROOT, stderr=log, env={**os.environ, "HUB": url, "BEAT": str(beat)}
        )
        stack.enter_context(server)
        stack.callback(server.terminate)
        until(lambda: b"Booting" in (tmp_path / "log").read_bytes())
        viewer = subprocess.Popen(
            ["ip", "netns", "exec", two, *program("raw_viewer")],
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        stack.enter_context(viewer)
        stack.callback(viewer.kill)
        assert viewer.stdout is not None
        while b"stream-open" not in viewer.stdout.readline():
            pass
        hub = stack.enter_context(closing(Hub(url)))
        ip("-n", two, "link", "set", "cable", "down")
        gone = time.monotonic()
        if busy:
            for _ in range(100):
                hub.publish("news", "x" * 10_000)
        until(lambda: b"ended='client disconnected'" in (tmp_path / "log").read_bytes(), 20)
        # A stall may be as long as that, however short the heartbeat is; timers add a little.
        assert STALL - 0.5 < time.monotonic() - gone < STALL + 2 * beat + 1.5
