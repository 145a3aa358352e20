"""``ssekit stats`` and ``ssekit top``: what they show of a running server, and where."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
from collections import deque
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from ssekit import Hub
from ssekit.cli.top import Screen, rate, sparkline
from ssekit.testing import connect
from tests.waiting import until

SSEKIT = [sys.executable, "-m", "ssekit"]


def ssekit(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*SSEKIT, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/hub.db"


@pytest.fixture
def busy(url: str) -> Iterator[Hub]:
    """A hub with one stream, in which an event is published all the time."""
    stop = threading.Event()
    with Hub(url) as hub, connect(hub.stream("news")) as client:
        next(client)

        def publish() -> None:
            while not stop.wait(0.05):
                hub.publish("news", "event")
                next(client)

        thread = threading.Thread(target=publish)
        thread.start()
        yield hub
        stop.set()
        thread.join()


def test_stats_are_printed_for_people(busy: Hub, url: str) -> None:
    done = ssekit("stats", "--url", url)
    assert done.returncode == 0, done.stderr
    said = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert said["workers"] == "1"
    assert said["streams"] == "1 open: 0 taken over (0 lagging), 1 iterated"
    assert "ms on average" in said["published"]


def test_stats_are_printed_for_programs(busy: Hub, url: str) -> None:
    said = json.loads(ssekit("stats", "--json", "--url", url).stdout)
    assert said["server"]["iterated"] == 1
    assert list(said["workers"]) == [str(os.getpid())]
    assert "process" not in said


@pytest.mark.parametrize("command", ["stats", "top"])
def test_without_a_server_it_is_said_and_nothing_is_made(
    command: str, url: str, tmp_path: Path
) -> None:
    done = ssekit(command, "--url", url)
    assert done.returncode == 1
    assert "start the server" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_top_prints_once_where_there_is_no_terminal(busy: Hub, url: str) -> None:
    done = ssekit("top", "--every", "0.5", "--url", url)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    rows = {row[0]: row for line in done.stdout.splitlines() if (row := line.split())}
    worker, channel = rows[str(os.getpid())], rows["news"]
    assert worker[:2] == [str(os.getpid()), "1"]
    assert channel[0] == "news"
    assert float(channel[1]) > 0


@pytest.mark.parametrize(("width", "shown"), [(30, False), (100, True)])
def test_top_fits_the_terminal_and_ends_with_a_key(
    busy: Hub, url: str, width: int, shown: bool
) -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 20, width, 0, 0))
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "", "LINES": ""}
    command = [*SSEKIT, "top", "--every", "0.2", "--url", url]
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=env) as process:
        os.close(slave)
        output = Output(master)
        output.until("events/s↓")
        os.write(master, b"r")
        output.until("events/s↑")
        os.write(master, b"s")
        output.until("lagging↑" if shown else "worker↑")
        assert ("lagging" in output.text) == shown
        os.write(master, b"q")
        output.until("\x1b[?1049l")  # The screen is as it was.
        assert process.wait(10) == 0
    os.close(master)


class Output:
    """What a program writes to a terminal."""

    def __init__(self, file: int) -> None:
        self._file = file
        self.text = ""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            try:
                self.text += os.read(self._file, 65536).decode(errors="replace")
            except OSError:
                return

    def until(self, wanted: str) -> None:
        until(lambda: wanted in self.text, 20, repr(wanted))


def test_a_screen_shows_the_busiest_first_and_the_other_way_round() -> None:
    with Hub() as hub, connect(hub.stream("news")) as client:
        next(client)
        screen = Screen()
        screen.look(hub.stats())
        screen.channels = {"quiet": deque([1.0]), "busy": deque([0.0, 50.0])}
        text = drawn(screen, 80)
        assert text.index("busy") < text.index("quiet")
        assert "▁█" in text
        screen.press("w")
        assert "busy" not in drawn(screen, 80)
        screen.press("w")
        assert "worker" not in drawn(screen, 80).partition("\n")[2]


def drawn(screen: Screen, width: int, height: int = 24) -> str:
    console = Console(width=width, file=StringIO(), record=True)
    console.print(screen.drawn(width, height))
    return console.export_text()


@pytest.mark.parametrize("width", range(12, 120, 9))
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    with Hub() as hub, connect(hub.stream("news")) as client:
        next(client)
        screen = Screen()
        screen.look(hub.stats())
        screen.channels = {"x" * 300: deque([1.0] * 20)}
        assert max(map(len, drawn(screen, width).splitlines())) <= width


def test_control_sequences_in_a_channels_name_do_not_reach_the_terminal() -> None:
    with Hub() as hub:
        screen = Screen()
        screen.look(hub.stats())
        screen.channels = {"a\x1b]0;title\x07[bold]": deque([1.0])}
        text = drawn(screen, 100)
    assert "\x1b" not in text
    assert "[bold]" in text


def test_a_sparkline_is_as_high_as_its_values() -> None:
    assert sparkline(deque([0.0, 1.0, 2.0])) == "▁▅█"
    assert sparkline(deque([0.0, 0.0])) == "▁▁"
    assert [rate(value) for value in (0.0, 0.25, 12.4, 12345.6)] == ["0", "0.2", "12", "12,346"]
