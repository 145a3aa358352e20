"""Producers: who produces a channel, how it ends, and what becomes of work whose process dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from ssekit import Cancelled, ChannelBusy, ChannelFinished, Event, Hub
from ssekit.hub import lease
from ssekit.testing import connect
from tests.clients import Client
from tests.servers import ROOT, gunicorn
from tests.test_fanout import get
from tests.waiting import until

pytestmark = pytest.mark.slow

APP = "tests.apps.starting:app"


def ended(hub: Hub, channel: str) -> list[Any]:
    """The reasons of all the ends that a channel has had."""
    events = hub.subscribe(channel, last_event_id=hub.position().split("-")[0] + "-0", timeout=5)
    return [event.data for event in events if event.event == "stream-end"]


def test_a_producers_channel_is_finished_with_its_block(hub: Hub) -> None:
    with connect(hub.stream("answer")) as viewer:
        next(viewer)
        with hub.producer("answer") as out:
            assert hub.status("answer") == ("producing", None)
            first = out.send({"n": 1})
            second = out.send(Event("two", "named"))
            keyed = out.send(3, key="progress")
        assert hub.status("answer") == ("finished", "finished")
        events = list(viewer)
    assert [event.id for event in events[:3]] == [first.id, second.id, keyed.id]
    assert [event.event for event in events] == ["message", "named", "message", "stream-end"]
    assert '"reason":"finished"' in events[3].data


def test_an_exception_fails_the_channel_and_is_passed_on(hub: Hub) -> None:
    with pytest.raises(ZeroDivisionError), hub.producer("answer"):
        _ = 1 / 0
    assert hub.status("answer") == ("finished", "failed")


def test_a_channel_has_one_producer(hub: Hub, url: str) -> None:
    with hub.producer("answer") as out:
        with pytest.raises(ChannelBusy), hub.producer("answer"):
            pass
        if url != "memory:":
            with Hub(url) as other, pytest.raises(ChannelBusy), other.producer("answer"):
                pass
        out.send("still mine")
    with pytest.raises(ChannelFinished), hub.producer("answer"):
        pass
    hub.reopen("answer")
    with hub.producer("answer") as again:
        again.send("x")
        with pytest.raises(ChannelFinished):
            out.send("no longer mine")


def test_a_produced_channel_keeps_all_of_its_events(open_hub: Any) -> None:
    hub = open_hub(history=3)
    with hub.producer("answer") as out:
        for n in range(50):
            out.send(n)
        with connect(hub.stream("answer", replay="all")) as viewer:
            assert [event.data for event in islice(viewer, 50)] == [str(n) for n in range(50)]


def test_a_cancelled_producer_is_told_at_its_next_send(hub: Hub) -> None:
    def produce() -> None:
        with hub.producer("answer") as out:
            assert not out.cancelled
            assert hub.cancel("answer")
            until(lambda: out.cancelled)
            out.send("x")

    with pytest.raises(Cancelled):
        produce()
    assert hub.status("answer") == ("finished", "cancelled")


def test_a_producer_whose_channel_somebody_finished_cannot_send(hub: Hub) -> None:
    def produce() -> None:
        with hub.producer("answer") as out:
            hub.finish("answer")
            out.send("x")

    with pytest.raises(ChannelFinished) as raised:
        produce()
    assert raised.value.reason == "finished"


def test_work_in_the_background_sends_what_it_yields_or_returns(hub: Hub) -> None:
    def words(count: int) -> Iterator[Any]:
        yield from (str(n) for n in range(count))
        yield None
        yield Event("named", "last")

    assert hub.start("answer", words, 3)
    with connect(hub.stream("answer", replay="all"), timeout=5) as viewer:
        data = [event.data for event in viewer if event.event != "stream-open"]
    assert data[:4] == ["0", "1", "2", "named"]
    assert not hub.start("answer", words, 3)
    assert hub.start("one", lambda: {"n": 1})
    until(lambda: hub.status("one").state == "finished")
    assert [event.data for event in hub.history("one")] == ['{"n":1}']


def test_work_is_never_started_twice(hub: Hub) -> None:
    release = threading.Event()
    runs: list[int] = []

    def work() -> None:
        runs.append(1)
        release.wait(10)

    begun = [hub.start("answer", work) for _ in range(5)]
    assert begun == [True, False, False, False, False]
    release.set()
    until(lambda: hub.status("answer").state == "finished")
    assert runs == [1]


def test_work_that_fails_is_logged_and_fails_its_channel(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    def work() -> Iterator[str]:
        yield "x"
        raise RuntimeError("no more words")

    hub.start("answer", work)
    until(lambda: hub.status("answer") == ("finished", "failed"))
    until(lambda: "no more words" in caplog.text)


def test_work_that_is_cancelled_ends_with_its_finally(hub: Hub) -> None:
    closed = threading.Event()

    def work() -> Iterator[int]:
        try:
            n = 0
            while True:
                yield n
                time.sleep(0.01)
                n += 1
        finally:
            closed.set()

    hub.start("answer", work)
    until(lambda: hub.history("answer"))
    hub.cancel("answer")
    assert closed.wait(5)
    assert hub.status("answer") == ("finished", "cancelled")


def test_closing_a_hub_ends_what_it_produces(url: str, tmp_path: Path) -> None:
    if url == "memory:":
        pytest.skip("a log in memory ends with its hub")
    release = threading.Event()
    with Hub(url) as watching:
        with Hub(url) as hub:
            hub.start("answer", release.wait, 10)
            assert watching.status("answer").state == "producing"
        until(lambda: watching.status("answer") == ("finished", "lost"), 3)
        release.set()


@contextmanager
def process(url: str, channel: str, how: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.apps.producing", url, channel, how]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == "producing\n"
            yield running
        finally:
            running.kill()


@pytest.fixture
def shared(url: str) -> str:
    if url == "memory:":
        pytest.skip("a log in memory has one process")
    return url


def test_a_producer_that_is_killed_is_lost_within_15_seconds_exactly_once(
    shared: str, request: pytest.FixtureRequest
) -> None:
    if not shared.startswith("sqlite:"):  # that one takes the time that users see
        request.getfixturevalue("quick_leases")
    with (
        Hub(shared) as one,
        Hub(shared) as two,
        connect(one.stream("answer"), timeout=20) as viewer,
    ):
        next(viewer)
        two.status("answer")
        with process(shared, "answer", "forever") as running:
            next(viewer)
            killed = time.monotonic()
            running.kill()
            events = list(viewer)
        assert time.monotonic() - killed < 15
        assert events[-1].event == "stream-end"
        assert '"reason":"lost"' in events[-1].data
        time.sleep(2 * lease.LOOK)  # both have looked once more
        assert len(ended(one, "answer")) == 1
        assert one.status("answer") == two.status("answer") == ("finished", "lost")


@pytest.mark.usefixtures("quick_leases")
def test_a_producer_that_was_stopped_finds_that_it_has_lost_the_channel(shared: str) -> None:
    with Hub(shared) as hub, process(shared, "answer", "forever") as running:
        hub.status("answer")
        assert running.stdout is not None
        running.stdout.readline()
        running.send_signal(signal.SIGSTOP)
        until(lambda: hub.status("answer") == ("finished", "lost"), 15)
        before = hub.position()
        running.send_signal(signal.SIGCONT)
        *_, last = running.stdout
        assert last == "finished lost\n"
        assert hub.position() == before


@pytest.mark.usefixtures("quick_leases")
def test_a_reopened_channel_is_not_the_lost_producers(shared: str) -> None:
    with Hub(shared) as hub, process(shared, "answer", "forever") as running:
        hub.status("answer")
        running.send_signal(signal.SIGSTOP)
        until(lambda: hub.status("answer") == ("finished", "lost"), 15)
        hub.reopen("answer")
        with hub.producer("answer") as out:
            running.send_signal(signal.SIGCONT)
            assert running.stdout is not None
            *_, last = running.stdout
            assert last == "finished None\n"
            out.send("mine")


@pytest.mark.usefixtures("quick_leases")
@pytest.mark.parametrize("how", ["silent", "deaf"])
def test_silent_and_busy_work_is_not_taken_for_dead(shared: str, how: str) -> None:
    with Hub(shared) as hub, process(shared, "answer", how):
        until = time.monotonic() + lease.TERM + 2 * lease.BEAT
        while time.monotonic() < until:
            assert hub.status("answer") == ("producing", None)
            time.sleep(0.2)


def test_a_cancel_from_another_process_stops_a_producer_within_a_second(shared: str) -> None:
    with Hub(shared) as hub, process(shared, "answer", "forever") as running:
        cancelled = time.monotonic()
        hub.cancel("answer")
        assert running.stdout is not None
        lines = iter(running.stdout.readline, "")
        last = next(line for line in lines if line.startswith("cancelled"))
        assert time.monotonic() - cancelled < 1  # before the process has come to its end
        assert last == "cancelled True\n"


def test_a_look_long_after_the_one_before_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("ssekit.hub.lease.time.monotonic", lambda: now[0])
    with Hub() as hub:
        broker = hub._broker
        broker.beat("other", first=True)
        leases = lease.Leases(broker)

        def look(*seconds: float) -> bool:
            for second in seconds:
                now[0] += second
                leases._look()
            return "other" not in broker.leases()

        broker.produce("answer", "other")
        assert not look(0, 2, 2, 2, 2)
        assert not look(60), "this process was away"
        assert not look(2, 2, 2, 2)
        broker.beat("other")
        assert not look(2, 2, 2, 2, 2)
        look(2)
        assert hub.status("answer") == ("finished", "lost")


def test_an_outage_gives_every_lease_a_full_term_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with Hub() as hub:
        leases = lease.Leases(hub._broker)
        hub._broker.beat("other", first=True)
        assert leases._try(leases._look)
        assert leases._seen
        monkeypatch.setattr(hub._broker, "leases", _away)
        assert not leases._try(leases._look)


def _away() -> dict[str, int]:
    from ssekit import BrokerUnavailable

    raise BrokerUnavailable("nobody answers")


def test_a_lease_is_given_up_when_nothing_is_held(hub: Hub) -> None:
    with hub.producer("answer"):
        assert len(hub._broker.leases()) == 1
    until(lambda: not hub._broker.leases())
    with hub.producer("another"):
        assert len(hub._broker.leases()) == 1


@pytest.mark.parametrize("worker", ["gevent", "gthread"])
def test_two_workers_that_start_the_same_at_once_run_it_once(worker: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/hub.db"
    options = ("--workers", "2", "--threads", "4")
    with gunicorn(APP, *options, worker=worker, env={"HUB": url}) as server:
        answers: list[str] = []
        address = f"{server.url}/start?channel=answer&count=5"
        threads = [threading.Thread(target=lambda: answers.append(get(address))) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        begun = [answer for answer in answers if answer.startswith("True")]
        assert len(answers) == 12
        assert len(begun) == 1
        with Client(f"{server.url}/?channel=answer", version="1.1") as client:
            client.until_end()
            data = [event.data for event in client.events if event.event == "message"]
        assert data == [f"by {begun[0].split()[1]}", *"01234"]


@pytest.mark.parametrize("worker", ["gevent", "gthread"])
def test_a_worker_that_is_told_to_end_loses_its_channels_at_once(
    worker: str, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/hub.db"
    with (
        Hub(url) as hub,
        gunicorn(APP, "--threads", "4", worker=worker, env={"HUB": url}) as server,
    ):
        assert get(f"{server.url}/start?channel=answer").startswith("True")
        until(lambda: len(hub.history("answer")) > 3)
        told = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        until(lambda: hub.status("answer") == ("finished", "lost"), 3)
        assert time.monotonic() - told < 2


def test_work_is_not_started_in_a_master_before_the_fork(tmp_path: Path) -> None:
    env = {"HUB": f"sqlite:///{tmp_path}/hub.db", "START_AT_ONCE": "1"}
    command = [sys.executable, "-m", "gunicorn", "-k", "gevent", "--preload", APP]
    command += ["--bind", "127.0.0.1:0", "--config", "/dev/null"]
    failed = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        check=False,
        text=True,
        timeout=30,
    )
    assert failed.returncode
    assert "call it in a worker" in failed.stderr
    with gunicorn(APP, env=env) as server, Hub(env["HUB"]) as hub:
        until(lambda: hub.status("early").state == "producing")
        assert server.process.poll() is None
