"""Ending streams on all workers: how soon, and what deaths and restarts change about it."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from ssekit import Hub
from tests.clients import Client
from tests.redis_server import RedisServer, StartRedis
from tests.servers import Server, gunicorn
from tests.waiting import mostly_below, until

pytestmark = pytest.mark.slow

APP = "tests.apps.granted:app"


@pytest.fixture
def redis(start_redis: StartRedis) -> RedisServer:
    return start_redis()


def enter(server: Server, user: str, **headers: str) -> Client:
    headers = {"X-User": user, **headers}
    client = Client(f"{server.url}/?channel=news", headers=headers, version="1.1", timeout=20)
    if client.status == 200:
        client.until_body(b"stream-open")
    return client


def kill_workers(server: Server) -> None:
    workers = server.children()
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    until(lambda: len(set(server.children()) - set(workers)) == len(workers), 20, "new workers")


def test_streams_on_four_workers_end_within_a_second(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/hub.db"
    with Hub(url) as hub, gunicorn(APP, "--workers", "4", env={"HUB": url}) as server:

        def slowest() -> float:
            with ExitStack() as stack:
                anns = [stack.enter_context(enter(server, "ann")) for _ in range(200)]
                bobs = [stack.enter_context(enter(server, "bob")) for _ in range(20)]
                began = time.monotonic()
                hub.disconnect(subject="ann")
                hub.publish("news", "secret")
                for client in anns:
                    assert b"secret" not in client.until_end()
                took = time.monotonic() - began
                for client in bobs:
                    client.until_body(b"secret")
                return took

        assert mostly_below(1.0, slowest)


def test_a_revocation_outlives_the_workers_and_the_broker(redis: RedisServer) -> None:
    with Hub(redis.url) as hub, gunicorn(APP, "--workers", "2", env={"HUB": redis.url}) as server:
        issued = f"{time.time()}"
        with enter(server, "ann", **{"X-Issued": issued}) as ann:
            hub.revoke(subject="ann")
            ann.until_end()
        redis.kill()
        redis.start()
        kill_workers(server)
        with enter(server, "ann", **{"X-Issued": issued}) as refused:
            assert refused.status == 403
        with enter(server, "ann") as anew, enter(server, "bob", **{"X-Issued": issued}) as bob:
            assert (anew.status, bob.status) == (200, 200)
            redis.kill()
            redis.start()
            hub.disconnect(subject="ann")
            hub.publish("news", "secret")
            assert b"secret" not in anew.until_end()
            bob.until_body(b"secret")


@pytest.mark.parametrize("on_outage", ["keep", "end"])
def test_while_the_log_is_away_streams_stay_or_end_as_the_hub_says(
    redis: RedisServer, on_outage: str
) -> None:
    with gunicorn(APP, env={"HUB": redis.url, "ON_OUTAGE": on_outage}) as server:
        with enter(server, "ann") as ann:
            redis.kill()
            if on_outage == "end":
                ann.until_closing_retry()
                with enter(server, "ann") as anew:  # is told to come back, and not for good
                    assert (anew.status, anew.headers["Content-Type"]) == (
                        503,
                        "text/plain; charset=utf-8",
                    )
            else:
                until(lambda: "broker is away" in server.log)
                ann.until_body(b":\n" * 2)
            redis.start()
            if on_outage == "end":
                until(lambda: comes_back(server), 20, "ann's stream")
            else:
                with Hub(redis.url) as hub:
                    hub.publish("news", "after it")
                ann.until_body(b"after it")


def comes_back(server: Server) -> bool:
    with Client(f"{server.url}/", headers={"X-User": "ann"}) as client:
        return client.status == 200


@pytest.mark.parametrize("begin", ["live", "from the beginning"])
def test_a_viewer_that_lags_or_catches_up_gets_nothing_that_came_after(
    tmp_path: Path, begin: str
) -> None:
    url = f"sqlite:///{tmp_path}/hub.db"
    with Hub(url) as hub, gunicorn(APP, env={"HUB": url}) as server:
        first = str(hub.publish("news", "first").id)
        headers = {"Last-Event-ID": first} if begin != "live" else {}
        padding = "x" * 100_000

        def fill() -> None:
            for _ in range(200):  # 20 MB: more than the kernel's buffers have room for
                hub.publish("news", padding)

        if begin != "live":
            fill()
        client = Client(f"{server.url}/", headers={"X-User": "ann", **headers}, timeout=30)
        with client:
            if begin == "live":
                client.until_body(b"stream-open")
                fill()
            with enter(server, "bob") as bob:
                hub.disconnect(subject="ann")
                hub.publish("news", "secret")
                bob.until_body(b"secret")
            assert b"secret" not in client.until_end()
