"""What a hub counts: of its process, and of all processes of its server."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ssekit import Hub, InvalidEvent
from ssekit.brokers import Entry
from ssekit.host.counting import Counts
from ssekit.hub.counters_file import counters_file
from ssekit.hub.recent import RecentEntries
from ssekit.hub.tally import Tally
from ssekit.script import Folder
from ssekit.testing import connect
from tests.waiting import until


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/hub.db"


def test_a_hub_counts_what_it_delivers_and_why_streams_end(url: str) -> None:
    with Hub(url) as hub:
        with connect(hub.stream("news")) as client:
            assert next(client).event == "stream-open"
            hub.publish("news", "one")
            assert next(client).data == "one"
            now = hub.stats().process
            assert (now.streams, now.taken_over, now.iterated, now.opened) == (1, 0, 1, 1)
        until(lambda: hub.stats().process.streams == 0)
        stats = hub.stats()
    assert stats.process == stats.server == next(iter(stats.workers.values()))
    assert stats.process.ended["client disconnected"] == 1
    assert (stats.process.events, stats.process.published) == (2, 1)
    assert stats.process.bytes > len("data: one")
    assert (stats.process.publish.count, stats.process.delay.count) == (1, 1)
    assert 0 < stats.process.publish.sum < 5
    assert (stats.process.behind_events, stats.process.behind_seconds) == (0, 0.0)
    assert stats.process.entries == 1
    assert stats.process.entry_bytes > 0
    assert (stats.end or "").endswith("-1")


@pytest.mark.parametrize(
    ("code", "ended"),
    [
        ("send(1); send(2)", "source ended"),
        ("send(1); send(2); sys.exit()", "source ended"),
        ("send(1); send(2); 1 / 0", "source failed"),
        ("send(1); send(2); [None for _ in every(0.05)]", "client disconnected"),
    ],
)
def test_the_streams_of_scripts_are_counted_and_logged_like_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, code: str, ended: str
) -> None:
    script = f"import sys\nfrom ssekit import every\nfrom ssekit.script import send\n{code}\n"
    (tmp_path / "script.py").write_text(script)
    caplog.set_level(logging.INFO, "ssekit.streams")
    with Hub() as hub:
        with connect(Folder(tmp_path, hub=hub), "/script.py?key=secret") as stream:
            assert [next(stream).data, next(stream).data] == ["1", "2"]
            if ended == "client disconnected":
                assert hub.stats().process.streams == 1
        numbers = hub.stats().process
        assert (numbers.opened, numbers.streams, numbers.events) == (1, 0, 2)
        assert {why: count for why, count in numbers.ended.items() if count} == {ended: 1}
    (line,) = [r.getMessage() for r in caplog.records if r.name == "ssekit.streams"]
    assert re.fullmatch(rf"path=/script.py seconds=0\.\d+ events=2 bytes=\d+ ended='{ended}'", line)


def test_an_answer_of_a_script_is_no_stream(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("from ssekit.script import respond; respond('ok')")
    with Hub() as hub:
        with connect(Folder(tmp_path, hub=hub), "/script.py") as answer:
            assert answer.read_all() == b"ok"
        assert hub.stats().process.opened == 0


def test_what_is_refused_is_counted(url: str) -> None:
    with Hub(url) as hub:
        with pytest.raises(InvalidEvent):
            hub.publish("news", float("nan"))
        assert (hub.stats().process.refused, hub.stats().process.published) == (1, 0)


def test_clients_over_a_limit_are_counted_by_the_limit() -> None:
    with Hub(max_streams=1) as hub:
        stream = hub.stream("news")
        with connect(stream) as first:
            next(first)
            with connect(stream) as second:
                list(second)
        assert hub.stats().process.rejected["max_streams"] == 1
        assert hub.stats().process.opened == 1


def test_lost_history_is_counted() -> None:
    with Hub() as hub, connect(hub.stream("news"), last_event_id="1-1") as client:
        assert next(client).event == "stream-reset"
        assert hub.stats().process.resets == 1


def test_members_are_counted_where_they_are_held() -> None:
    with Hub() as hub, connect(hub.stream("room", member="ada")) as client:
        next(client)
        until(lambda: hub.stats().process.members == 1)


def test_an_endpoint_counts_whom_it_admits_and_whom_it_refuses() -> None:
    from ssekit.access import Grant

    grants = [Grant(["news"]), None]
    with Hub() as hub:
        endpoint = hub.endpoint(lambda request: grants.pop(0))
        with connect(endpoint) as client:
            next(client)
        with connect(endpoint) as client:
            assert list(client) == []
        assert (hub.stats().process.authorized, hub.stats().process.unauthorized) == (1, 1)


def test_numbers_are_those_of_all_processes_with_the_same_url(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/hub.db"
    program = [sys.executable, "-m", "tests.apps.programs.counted_viewer", url]
    with Hub(url) as hub, subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "reading\n"
        with connect(hub.stream("news")) as client:
            next(client)
            stats = until(lambda: (now := hub.stats()).server.streams == 2 and now)
            assert set(stats.workers) >= {other.pid}
            assert (stats.process.streams, stats.workers[other.pid].streams) == (1, 1)
        other.kill()
        other.wait()
        stats = until(lambda: (now := hub.stats()).server.streams == 0 and now)
        assert stats.server.opened == 2, "what a killed process has counted stays"
        assert other.pid not in stats.workers


def test_a_process_that_only_looks_is_not_among_them(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/hub.db"
    with Hub(url) as hub, connect(hub.stream("news")) as client:
        next(client)
        command = [sys.executable, "-m", "ssekit", "stats", "--json", "--url", url]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        said = json.loads(done.stdout)
        assert said["server"]["streams"] == 1
        assert len(said["workers"]) == 1
        assert len(hub.stats().workers) == 1


def test_a_process_that_has_not_read_all_is_behind() -> None:
    with Hub() as hub:
        with connect(hub.stream("news")) as client:
            next(client)
            hub.publish("news", "one")
            next(client)
        until(lambda: hub.stats().process.behind_events == 0)
        hub.counts.set("position", 0)
        time.sleep(0.02)
        stats = hub.stats()
        assert stats.server.behind_events == stats.process.behind_events == 1
        assert 0.02 <= (stats.process.behind_seconds or 0) < 10


def test_a_closed_hub_keeps_its_numbers_in_the_file_and_leaves_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/hub.db"
    with Hub(url) as hub, connect(hub.stream("news")) as client:
        next(client)
    other = Counts(counters_file(url))
    totals, each = other.totals()
    assert totals["opened"] == 1
    assert each == {}


def test_an_unknown_reason_is_counted_as_another() -> None:
    counts = Counts()
    counts.ended("nobody knows")
    counts.rejected("nobody knows")
    assert counts.own()["ended other"] == counts.own()["rejected other"] == 1


def test_a_delay_is_in_the_bucket_of_its_length() -> None:
    counts = Counts()
    counts.sent([100, 0.02])
    own = counts.own()
    assert own["delay le 14"] == 1
    assert sum(own[f"delay le {number}"] for number in range(15)) == 2
    assert own["delay microseconds"] == 100_020_000


def test_what_the_fanout_sends_is_counted_when_its_timer_says_so() -> None:
    counts, recent = Counts(), RecentEntries(10)
    tally = Tally(counts, recent)
    tally.later = True
    for seq in range(1, 4):
        entries = [Entry(f"5-{seq}", "news", b"data: x\n", time=time.time() - 1)]
        recent.extend(entries)
        tally.events += 2
        tally.bytes += 20
        tally.took(entries)
        tally.published.append((("news", "other")[seq % 2], 0.002))
    assert not any(counts.own().values())
    tally.settle()
    own = counts.own()
    assert (own["events"], own["bytes"], own["position"]) == (6, 60, 3)
    assert own["delay le 11"] == own["publish le 2"] == own["published"] == 3
    assert own["publish microseconds"] == 6000
    tally.settle()
    assert counts.own() == own
    tally.events += 1  # of the hub's own, to somebody who gets nothing of them
    tally.settle()
    assert counts.own()["events"] == 7
