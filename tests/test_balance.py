"""The workers of a server share the streams, and a reload resets no connection."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from ssekit.gunicorn import loads
from tests.ports import free_port
from tests.servers import Server, running
from tests.viewers import Viewers
from tests.waiting import until

pytestmark = pytest.mark.ci

WORKERS = 4
FULLEST = 1.3  # times the mean


def all_answer(server: Server) -> None:
    """Wait until each worker has answered a request."""
    answered: set[str] = set()

    def all_have() -> bool:
        answered.add(httpx.get(server.url).headers["X-Process"])
        return {str(pid) for pid in server.children()} <= answered

    until(all_have, 20)


@contextmanager
def serving() -> Iterator[Server]:
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--config", "python:ssekit.gunicorn"]
    command += ["--workers", str(WORKERS), "--bind", f"127.0.0.1:{port}"]
    with running([*command, "tests.apps.balanced:app"], port) as server:
        until(lambda: len(server.children()) == WORKERS)
        all_answer(server)
        yield server


@pytest.mark.parametrize("path", ["/waiting", "/hub"])
@pytest.mark.parametrize(("count", "every"), [(200, 0.01), (1000, 0.0)], ids=["slow", "fast"])
def test_streams_are_shared_by_all_workers(path: str, count: int, every: float) -> None:
    with serving() as server, Viewers(server.port, path) as viewers:
        viewers.open(count, every)
        assert viewers.fullest(WORKERS) < FULLEST, viewers.counts
        assert viewers.resets == 0


def test_viewers_of_a_killed_worker_go_to_its_successor() -> None:
    with serving() as server, Viewers(server.port, "/hub") as viewers:
        viewers.open(200, 0.01)
        before = set(server.children())
        os.kill(next(iter(viewers.counts)), signal.SIGKILL)
        until(lambda: len(set(server.children()) - before) == 1)
        (new,) = set(server.children()) - before
        # A worker without streams takes what comes, once it has started.
        until(lambda: httpx.get(server.url).headers["X-Process"] == str(new))
        viewers.open(viewers.forget_ended(), 0.002)
        assert viewers.counts[new] > 0
        assert viewers.fullest(WORKERS) < FULLEST, viewers.counts


def test_a_reload_resets_no_connection_and_the_new_workers_share_the_streams() -> None:
    with serving() as server, Viewers(server.port, "/hub") as viewers:
        viewers.open(200, 0.005)
        before = set(server.children())
        done = threading.Event()
        refused: list[httpx.TransportError] = []

        def ask() -> None:
            while not done.is_set():
                try:
                    httpx.get(server.url)
                except httpx.TransportError as error:
                    refused.append(error)

        asking = [threading.Thread(target=ask) for _ in range(3)]
        for thread in asking:
            thread.start()
        try:
            server.process.send_signal(signal.SIGHUP)
            until(lambda: not before & set(server.children()), 20)
            until(lambda: len(server.children()) == WORKERS)
            # gunicorn forgets a worker that is told to end while it starts: wait for all of them.
            all_answer(server)
        finally:
            done.set()
            for thread in asking:
                thread.join()
        viewers.open(viewers.forget_ended(), 0.005)
        assert refused == []
        assert viewers.resets == 0
        assert not before & set(viewers.counts)
        assert viewers.fullest(WORKERS) < FULLEST, viewers.counts


def test_a_worker_that_was_killed_is_not_counted_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(loads.time, "monotonic", lambda: now)
    first, second, third = loads.Load(7), loads.Load(8), loads.Load(9)
    first.write(10)
    second.write(30)
    third.write(20)
    assert first.mean() == 20
    third.close()
    now += 2.5
    second.write(40)
    assert first.mean() == 25
    now += 2.5  # The first has not written for longer than that.
    assert second.mean() == 40


def test_a_worker_by_itself_never_has_more_than_the_mean() -> None:
    load = loads.Load(11)
    for connections in range(20):  # They come faster than the others' numbers are read.
        load.write(connections)
        assert load.mean() == connections
    load.close()


@pytest.mark.parametrize(
    ("worker", "number"),
    [("ours", signal.SIGTERM), ("ours", signal.SIGINT), ("plain", signal.SIGTERM)],
)
def test_a_server_ends_at_once_while_its_workers_begin(
    tmp_path: Path, worker: str, number: int
) -> None:
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--config", "python:tests.apps.slow_to_begin"]
    command += ["--bind", f"127.0.0.1:{port}", "tests.apps.counting:app"]
    begins = tmp_path / "begins"
    with running(command, port, env={"BEGINS": str(begins), "WORKER": worker}) as server:
        until(begins.exists, 20)
        assert server.seconds_to_stop(number) < 5
