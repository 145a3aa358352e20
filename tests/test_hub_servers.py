"""A hub under real servers: what viewers cost, what workers say, and joining in the middle."""

from __future__ import annotations

import os
import re
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import pytest

from bench.processes import processor_seconds
from ssekit import Hub
from tests.apps.between import assert_all_came_in_order
from tests.clients import Client
from tests.crowd import Publishers
from tests.redis_server import StartRedis
from tests.servers import gunicorn
from tests.waiting import mostly_below, until

pytestmark = pytest.mark.slow

APP = "tests.apps.news:app"


@pytest.mark.parametrize("fanout", ["on", "off"])
def test_what_is_published_between_the_replay_and_going_live_arrives_once(
    tmp_path: Path, fanout: str
) -> None:
    url = f"sqlite:///{tmp_path}/hub.db"
    hub = Hub(url)
    before = str(hub.publish("news", "before").id)
    for n in range(3):
        hub.publish("news", n)
    env = {"HUB": url, "SSEKIT_FANOUT": fanout}
    with (
        gunicorn("tests.apps.between:app", env=env) as server,
        Client(server.url, headers={"Last-Event-ID": before}) as client,
    ):
        client.until_body(b"follow 3")
        hub.publish("news", "last")
        assert_all_came_in_order(client.until_body(b"data: last"))
    hub.close()


def test_a_thousand_viewers_are_one_reading_connection_to_redis(start_redis: StartRedis) -> None:
    redis = start_redis()
    with gunicorn(APP, env={"HUB": redis.url, "BEAT": "60"}) as server, ExitStack() as stack:
        watching = [stack.enter_context(Client(server.url, timeout=30)) for _ in range(1000)]
        for client in watching:
            assert client.wait(1)[0].event == "stream-open"
        publishers = Publishers(redis.url)
        for n in range(10):
            publishers.request(f"{server.url}/publish", "news", f"request {n}", 1)
        publishers.join()
        for client in watching:
            assert {event.id for event in client.wait(11)[1:]} == set(publishers.stored)
        names = re.findall(r" name=(ssekit\S*)", redis.command("CLIENT", "LIST").decode())
        assert names.count("ssekit-follow") == 1
        assert 1 <= names.count("ssekit-write") <= 8
        assert names.count("ssekit-read") <= 8


def test_news_of_another_process_are_soon_there_and_500_idle_viewers_cost_nearly_nothing(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path}/hub.db"
    hub = Hub(url)

    def wait_for_news(client: Client) -> float:
        """The median of some waits, in seconds."""
        waits = []
        for _ in range(20):
            count, published = len(client.events), time.monotonic()
            hub.publish("news", "x")
            client.wait(count + 1)
            waits.append(time.monotonic() - published)
        return median(waits)

    def share_of_a_core(process: int) -> float:
        before, began = processor_seconds([process]), time.monotonic()
        time.sleep(1)
        return (processor_seconds([process]) - before) / (time.monotonic() - began)

    with gunicorn(APP, env={"HUB": url, "BEAT": "15"}) as server, ExitStack() as stack:
        with Client(server.url) as client:
            client.wait(1)
            (worker,) = server.children()
            assert mostly_below(0.010, lambda: wait_for_news(client))
            alone = max(share_of_a_core(worker) for _ in range(3))
            open_before = len(os.listdir(f"/proc/{worker}/fd"))
        for _ in range(500):
            stack.enter_context(Client(server.url)).wait(1)
        # Each has its connection, and nothing beside it.
        assert len(os.listdir(f"/proc/{worker}/fd")) - open_before <= 500
        # What the machine makes of a process that wakes a few times a second is not theirs.
        assert mostly_below(1.5 * alone + 0.005, lambda: share_of_a_core(worker))
    hub.close()


def test_a_hub_in_memory_says_in_each_of_several_workers_that_it_is_alone() -> None:
    with gunicorn(APP, "--workers", "3", env={"HUB": "memory:"}) as server, ExitStack() as stack:
        epochs: set[str | None] = set()

        def all_have_served() -> bool:
            client = stack.enter_context(Client(server.url))
            epochs.add(client.wait(1)[0].id)  # each worker's log has its own epoch
            return len(epochs) == 3

        until(all_have_served, 30)
        assert server.log.count("this hub is memory:") == 3
    with gunicorn(APP, env={"HUB": "memory:"}) as server, Client(server.url) as client:
        client.wait(1)
        assert "this hub is memory:" not in server.log


@pytest.mark.parametrize("worker", ["gevent", "gthread"])
def test_a_source_that_cannot_reach_something_is_a_500(worker: str) -> None:
    with gunicorn(APP, worker=worker) as server:
        with Client(f"{server.url}/away") as client:
            assert client.status == 500
        until(lambda: "the source's own broker is away" in server.log)
