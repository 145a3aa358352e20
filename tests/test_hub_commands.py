"""publish, and listen to channels, as processes that share a hub."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssekit import Event
from ssekit.cli.main import main
from ssekit.hub import Hub
from ssekit.testing import connect
from tests.commands import ran, ssekit
from tests.servers import ROOT
from tests.waiting import until


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/hub.db"


@pytest.fixture
def hub(url: str) -> Iterator[Hub]:
    opened = Hub(url)
    yield opened
    opened.close()


def stored(hub: Hub, *channels: str) -> list[Event]:
    """Every event of these channels, from the beginning of the log."""
    mark = hub.publish(channels[0], "the mark")
    epoch = (mark.id or "").partition("-")[0]
    events = []
    subscription = hub.subscribe(*channels, last_event_id=f"{epoch}-0")
    for event in subscription:
        if event.id == mark.id:
            break
        events.append(event)
    subscription.close()
    return events


def test_publish_stores_an_event_and_prints_its_id(hub: Hub, url: str) -> None:
    done = ran("publish", "news", "hello", "--event", "headline", "--retry", "9", "--url", url)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"\d+-1\n", done.stdout)
    assert stored(hub, "news") == [Event("hello", "headline", done.stdout.strip(), 9)]


def test_publish_takes_json_as_json(hub: Hub, url: str) -> None:
    assert ran("publish", "news", '{"a":\n [1]}', "--json", "--url", url).returncode == 0
    assert ran("publish", "news", '{"a":\n [1]}', "--url", url).returncode == 0
    done = ran("publish", "news", "{a: 1}", "--json", "--url", url)
    assert done.returncode == 1
    assert done.stderr.startswith("ssekit: the data is not JSON: ")
    assert [event.data for event in stored(hub, "news")] == ['{"a":[1]}', '{"a":\n [1]}']


def test_publish_takes_all_of_standard_input_as_one_event(hub: Hub, url: str) -> None:
    done = ran("publish", "news", "-", "--url", url, input=b"one\r\ntwo")
    assert done.returncode == 0
    (event,) = stored(hub, "news")
    assert event.data == "one\ntwo"


@pytest.mark.parametrize(
    "arguments",
    [
        ("\udcff",),  # an argument that is not UTF-8
        ("x", "--event", "a\nb"),
        ("x", "--event", "stream-open"),
        ("x", "--retry", "-1"),
        ("null", "--json"),
    ],
)
def test_publish_refuses_what_an_event_cannot_carry(
    arguments: tuple[str, ...], hub: Hub, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["publish", "news", *arguments, "--url", url]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert stored(hub, "news") == []


@pytest.mark.parametrize("how", [("--lines",), ()], ids=["--lines", "no data"])
def test_publish_publishes_lines_as_they_arrive(how: tuple[str, ...], hub: Hub, url: str) -> None:
    with ssekit("publish", "build", *how, "--url", url) as command:
        ids = []
        for line in (b"one\n", b"\n", b"\xff two\r\n"):
            command.input.write(line)
            command.input.flush()
            ids.append(command.line().strip())  # while the input stays open
        command.input.write(b"no newline")
        command.input.close()
        assert command.code() == 0
        ids.append(command.line().strip())
    events = stored(hub, "build")
    assert [event.data for event in events] == ["one", "", "\ufffd two", "no newline"]
    assert [event.id for event in events] == ids


def test_lines_are_still_tried_while_the_hub_is_unavailable(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    with ssekit("publish", "build", "--lines", "--url", f"sqlite:///{folder}/hub.db") as command:
        command.input.write(b"lost\nlost too\n")
        command.input.flush()
        assert b"No such file" in (command.process.stderr or command.output).readline()
        # Only the second line may still be on its way: the third comes when the hub is there.
        folder.mkdir()
        command.input.write(b"stored\n")
        command.input.close()
        assert command.code() == 1
        assert command.errors() in {
            "ssekit: 2 lines were not published\n",
            "ssekit: 1 line was not published\n",
        }
        assert 1 <= len(command.output.read().split()) <= 2


def test_publish_ends_quietly_when_nobody_reads_the_ids(url: str) -> None:
    with ssekit("publish", "build", "--lines", "--url", url) as command:
        command.output.close()
        command.input.write(b"one\ntwo\n")
        command.input.close()
        assert command.code() == 0
        assert command.errors() == ""


def test_ctrl_c_ends_publish_quietly_with_130(url: str) -> None:
    with ssekit("publish", "build", "--lines", "--url", url) as command:
        command.input.write(b"one\n")
        command.input.flush()
        command.line()
        command.interrupt()
        assert command.code() == 130
        assert command.errors() == ""


def test_a_hub_that_cannot_be_reached_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path}/missing/hub.db", "redis://127.0.0.1:1/0"):
        done = ran("publish", "news", "x", "--url", url)
        assert (done.returncode, done.stdout) == (1, "")
        assert len(done.stderr.splitlines()) == 1


def test_a_hub_that_lacks_its_package_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "redis.py").write_text("raise ImportError('none', name='redis')")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    for command in ("publish", "listen"):
        done = ran(command, "news", "--url", "redis://localhost/0", env={"PYTHONPATH": path})
        assert done.returncode == 1
        assert (
            done.stderr
            == "ssekit: redis: URLs need the redis package: pip install 'ssekit[redis]'\n"
        )


def shell(script: str, url: str) -> subprocess.CompletedProcess[str]:
    """Run a line of shell in which ``$ssekit`` is the command, and ``$url`` names the hub."""
    env = {**os.environ, "ssekit": f"{sys.executable} -m ssekit", "url": url}
    return subprocess.run(
        ["sh", "-c", script],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_standard_input_and_output_may_be_closed(hub: Hub, url: str) -> None:
    done = shell(
        "$ssekit publish news --lines --url $url <&- && $ssekit publish news x --url $url >&-", url
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [event.data for event in stored(hub, "news")] == ["x"]


def test_output_that_cannot_be_written_is_one_line(hub: Hub, url: str) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    hub.publish("news", "x")
    for command in ("publish news x", "listen news --json"):
        done = shell(f"$ssekit {command} --url $url >/dev/full", url)
        assert done.returncode == 1
        assert done.stderr.startswith("ssekit: cannot write to standard output: No space")
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("publish",), "CHANNEL"),
        (("publish", "news", "x", "--lines"), "either DATA or --lines"),
        (("publish", "", "x"), "a channel is"),
        (("publish", "a\nb", "x"), "a channel is"),
        (("publish", "news", "x", "--url", "nothing:"), "'nothing:' names no broker"),
        (("publish", "news", "x", "--url", "memory:"), "within one process"),
        (("listen", "news", "--url", "memory:"), "within one process"),
        (("listen", "news", ""), "a channel is"),
    ],
)
def test_wrong_usage_is_explained_with_exit_code_2(
    arguments: tuple[str, ...],
    words: str,
    url: str,
) -> None:
    done = ran(*arguments, env={"SSEKIT_URL": url})
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr


def test_listen_prints_what_is_published_in_its_channels(hub: Hub, url: str) -> None:
    first = hub.publish("news", "zero")
    hub.publish("news", {"n": 1}, event="tick")
    hub.publish("other", "not this")
    hub.publish("sports", "two\nlines")
    after = ("--last-event-id", first.id or "", "--count", "2", "--url", url)
    done = ran("listen", "news", "sports", *after)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == 'tick: {"n":1}\ntwo\nlines\n'
    epoch = (first.id or "").partition("-")[0]
    done = ran("listen", "news", "sports", *after, "--json")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"event": "tick", "data": '{"n":1}', "id": f"{epoch}-2"},
        {"event": "message", "data": "two\nlines", "id": f"{epoch}-4"},
    ]
    done = ran("listen", "news", "sports", *after, "--raw")
    assert done.stdout == (
        f'event: tick\ndata: {{"n":1}}\nid: {epoch}-2\n\ndata: two\ndata: lines\nid: {epoch}-4\n\n'
    )


def test_listen_shows_each_event_at_once_and_ctrl_c_ends_it_with_130(hub: Hub, url: str) -> None:
    with ssekit("listen", "news", "--json", "--url", url) as command:
        opened = json.loads(command.line())
        assert (opened["event"], opened["data"]) == ("stream-open", "{}")
        for number in range(3):
            event = hub.publish("news", number)
            assert json.loads(command.line()) == {
                "event": "message",
                "data": str(number),
                "id": event.id,
            }
        command.interrupt()
        assert command.code() == 130
        assert command.errors() == ""


def test_listen_to_a_channel_ends_when_its_output_is_closed(hub: Hub, url: str) -> None:
    with ssekit("listen", "news", "--json", "--url", url) as command:
        command.line()
        command.output.close()
        assert command.code(5) == 0
        assert command.errors() == ""


def test_listen_says_that_events_were_missed_and_does_not_count_that(hub: Hub, url: str) -> None:
    with ssekit(
        "listen", "news", "--last-event-id", "gone", "--count", "1", "--url", url
    ) as command:
        assert command.process.stderr
        assert b"some events were missed" in command.process.stderr.readline()
        hub.publish("news", "next")
        assert command.line() == "next\n"
        assert command.code() == 0


def test_publish_and_listen_share_the_default_hub(tmp_path: Path) -> None:
    env = {"XDG_STATE_HOME": str(tmp_path), "SSEKIT_URL": ""}
    done = ran("publish", "news", "x", env=env, cwd=tmp_path)
    assert done.returncode == 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["ssekit"]
    epoch = done.stdout.partition("-")[0]
    done = ran("listen", "news", "--last-event-id", f"{epoch}-0", "--count", "1", env=env)
    assert done.stdout == "x\n"


def test_a_state_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    env = {"XDG_STATE_HOME": os.fspath(tmp_path / "file"), "SSEKIT_URL": ""}
    done = ran("publish", "news", "x", env=env)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "--url" in done.stderr


def test_members_prints_who_is_in_a_channel(hub: Hub, url: str) -> None:
    with (
        connect(hub.stream("room", member=("7", {"name": "A\x1b[2J"}))),
        connect(hub.stream("room", member="8")),
    ):
        until(lambda: len(hub.members("room")) == 2)
        done = ran("members", "room", "--url", url)
        assert sorted(done.stdout.splitlines()) == ['7  {"name": "A\\u001b[2J"}', "8"]
        done = ran("members", "room", "--json", "--url", url)
        assert json.loads(done.stdout) == {"7": {"name": "A\x1b[2J"}, "8": None}
    assert ran("members", "a*", "--url", url).returncode == 2


def test_publish_sets_a_key_and_history_prints_the_state(hub: Hub, url: str) -> None:
    for value in ("1", "2"):
        assert ran("publish", "rates", value, "--key", "a", "--url", url).returncode == 0
    assert hub.state("rates")["a"].data == "2"
    done = ran("history", "rates", "--state", "--json", "--url", url)
    assert json.loads(done.stdout)["data"] == "2"
    assert ran("history", "rates", "--url", url).stdout == ""


def test_publish_for_those_who_are_there_now_stores_nothing(hub: Hub, url: str) -> None:
    events = hub.subscribe("chat", timeout=10)
    next(events)
    done = ran("publish", "chat", "typing", "--no-store", "--url", url)
    assert (done.returncode, done.stdout) == (0, "")
    assert next(events).data == "typing"
    assert hub.history("chat") == []
    done = ran("publish", "chat", "typing", "--no-store", "--key", "a", "--url", url)
    assert done.returncode == 2


def test_publish_finishes_a_channel_after_its_lines_or_alone(hub: Hub, url: str) -> None:
    done = ran("publish", "build", "--lines", "--finish", "--url", url, input=b"one\ntwo\n")
    assert done.returncode == 0
    assert len(done.stdout.split()) == 3
    assert hub.status("build") == ("finished", "finished")
    again = ran("publish", "build", "--finish", "--url", url)
    assert again.returncode == 1
    assert "is finished" in again.stderr
    assert ran("publish", "build", "more", "--url", url).returncode == 1
    assert ran("publish", "other", "--finish", "--url", url).returncode == 0
    assert hub.status("other").state == "finished"


def test_listen_from_the_start_prints_what_a_channel_has_and_ends_with_it(
    hub: Hub, url: str
) -> None:
    for n in range(3):
        hub.publish("build", n)
    hub.finish("build")
    done = ran("listen", "build", "--from-start", "--url", url)
    assert done.returncode == 0
    assert done.stdout == "0\n1\n2\n"
    assert "a channel has ended" in done.stderr
    assert ran("listen", "http://127.0.0.1:1/", "--from-start").returncode == 2


def test_history_prints_the_last_events_oldest_first(hub: Hub, url: str) -> None:
    sent = [hub.publish("news", n) for n in range(5)]
    assert ran("history", "news", "--limit", "2", "--url", url).stdout == "3\n4\n"
    done = ran("history", "news", "--before", str(sent[2].id), "--url", url)
    assert done.stdout == "0\n1\n"
    assert ran("history", "news", "--limit", "0", "--url", url).returncode == 2
    assert ran("history", "news", "--before", "1-1", "--url", url).returncode == 1
    raw = ran("history", "news", "--limit", "1", "--raw", "--url", url)
    assert raw.stdout == f"data: 4\nid: {sent[4].id}\n\n"
