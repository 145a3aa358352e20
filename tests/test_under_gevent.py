"""What holds inside a process that gevent has patched, without a server around it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.servers import ROOT

PATCHED = """
from gevent import monkey
monkey.patch_all()
import gc, sys
import gevent
from ssekit import Hub, Stream

hub = Hub()
"""


def said(program: str, *arguments: str) -> str:
    """Run a program in a patched interpreter of its own, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", PATCHED + program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


LEAVING = """
def waiting():
    yield "first"
    gevent.sleep(60)

apps = {"subscription": hub.stream("news"), "source": Stream(waiting)}
app = apps[sys.argv[1]]

def serve():
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/"}
    blocks = app(environ, lambda status, headers: None)
    try:
        for block in blocks:
            pass
    finally:
        blocks.close()

def serve_some():
    servers = [gevent.spawn(serve) for _ in range(200)]
    gevent.sleep(0.05)
    for server in servers:
        server.kill(block=False)
    gevent.joinall(servers)
    gevent.sleep(0.1)
    del servers, server
    gc.collect()
    return len(gc.get_objects())

staying = gevent.spawn(serve)
counts = [serve_some() for _ in range(6)]
print(counts[-1] - counts[0])
"""


@pytest.mark.parametrize("kind", ["subscription", "source"])
def test_nothing_is_kept_of_a_stream_whose_server_gave_it_up(kind: str) -> None:
    assert int(said(LEAVING, kind)) < 100  # not one object for each of 200 streams


NATIVE = """
def listen():
    seen = []
    for event in hub.subscribe("news"):
        seen.append(event.data)
        if event.data == "last":
            return seen

if sys.argv[1] == "the main thread":
    next(hub.subscribe("news"))
    gevent.sleep(0.1)
native = gevent.get_hub().threadpool.spawn(listen)
while not hub._tail:
    gevent.sleep(0.01)
gevent.sleep(0.1)
for data in ("one", "two", "last"):
    hub.publish("news", data)
    gevent.sleep(0.05)
with gevent.Timeout(10):
    print(*native.get())
    here = hub.subscribe("news")
    next(here)
    hub.publish("news", "afterwards")
    print(next(here).data)
"""


@pytest.mark.parametrize("first", ["the main thread", "a native thread"])
def test_native_threads_and_greenlets_hear_the_same_hub(first: str) -> None:
    """Whoever is first begins the reading of the log, which must outlive a native thread."""
    assert said(NATIVE, first) == "{} one two last\nafterwards\n"


WAITING = """
seen = []

def source():
    first, second = hub.subscribe("one"), hub.subscribe("two")
    next(first), next(second)
    def other():
        seen.extend(event.data for event in second)
    gevent.spawn(other)
    for event in first:
        seen.append(event.data)
        yield event

def serve():
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/"}
    for block in Stream(source)(environ, lambda status, headers: None):
        pass

gevent.spawn(serve)
gevent.sleep(0.1)
for n in range(20):
    hub.publish("one", f"a{n}")
    hub.publish("two", f"b{n}")
    if n % 3 == 0:
        gevent.sleep(0.01)
gevent.sleep(0.2)
everything = sorted(f"{c}{n}" for c in "ab" for n in range(20))
print("all" if sorted(seen) == everything else seen)
"""


def test_a_source_may_wait_in_several_greenlets() -> None:
    assert said(WAITING) == "all\n"
