"""How a hub ends: closed, dropped, at the end of a block, in a process that was forked."""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref
from itertools import islice
from pathlib import Path

import pytest

from ssekit import Event, Hub, HubClosed
from ssekit.testing import connect
from tests.clients import Client
from tests.servers import gunicorn
from tests.test_fanout import get, inside, publish, texts
from tests.waiting import until

APP = "tests.apps.news:app"


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def threads() -> int:
    """Threads of the process, of Python's and others."""
    return len(list(Path("/proc/self/task").iterdir()))


def test_a_block_closes_its_hub() -> None:
    with Hub() as hub:
        events = hub.subscribe("news")
        hub.publish("news", "x")
        assert len(list(islice(events, 2))) == 2
    assert list(events) == []
    with pytest.raises(HubClosed):
        hub.publish("news", "y")


def test_a_hub_that_is_dropped_is_collected_with_its_threads_and_descriptors(url: str) -> None:
    def use() -> weakref.ref[Hub]:
        hub = Hub(url)
        events = hub.subscribe("news", timeout=10)
        hub.publish("news", "x")
        assert len(list(islice(events, 2))) == 2
        with connect(hub.stream("news")) as viewer:
            next(viewer)
        with hub.producer(f"answer {time.monotonic()}") as out:
            out.send("x")
        return weakref.ref(hub)

    use()
    gc.collect()
    until(lambda: not followers())
    open_before, threads_before = descriptors(), threads()
    dropped = [use() for _ in range(3)]
    until(lambda: gc.collect() >= 0 and not any(hub() for hub in dropped))
    until(lambda: threads() <= threads_before and descriptors() <= open_before)


def followers() -> int:
    return sum(thread.name == "ssekit-follower" for thread in threading.enumerate())


def test_a_subscription_keeps_its_hub() -> None:
    events = Hub().subscribe("news", timeout=0.2)
    gc.collect()
    assert next(events).event == "stream-open"
    with pytest.raises(TimeoutError):
        next(events)


def test_a_stream_keeps_its_hub() -> None:
    stream = Hub().stream("news", heartbeat=0.05)
    gc.collect()
    with connect(stream) as viewer:
        assert next(viewer).event == "stream-open"
        until(lambda: viewer.read() and viewer.body.count(b":\n") > 2)


def test_a_forked_child_that_closes_its_hub_ends_nothing_of_its_parent() -> None:
    with (
        gunicorn(APP, env={"BEAT": "0.2"}) as server,
        Client(server.url, version="1.1") as taken,
        Client(f"{server.url}/passing", version="1.1") as iterated,
    ):
        taken.wait(1)
        iterated.wait(1)
        until(lambda: inside(server)[0] == 1)
        assert get(f"{server.url}/fork") == "closed"
        publish(server, "after")
        for client in (taken, iterated):
            client.wait(2)
            assert texts(client) == ["after"]


def test_a_forked_child_that_drops_its_hub_ends_nothing_of_its_parent() -> None:
    hub = Hub()
    events = hub.subscribe("news", timeout=5)
    next(events)
    child = os.fork()
    if not child:
        del events, hub
        gc.collect()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    sent = hub.publish("news", "after")
    assert next(events) == Event("after", None, sent.id)
    hub.close()
