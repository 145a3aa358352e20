"""``ssekit top``: workers and channels of a running server as a table that is kept up to date.

The numbers of workers are those of `ssekit stats`; rates are differences between two looks at them.
Channels are seen in the log itself, by one connection that follows it, so a busy channel shows from
whichever machine it is published.
"""

from __future__ import annotations

import argparse
import os
import select
import sys
import termios
import threading
import time
import tty
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from ssekit import brokers
from ssekit.brokers import HistoryLost
from ssekit.brokers.contract import INTERNAL
from ssekit.cli.common import Usage, hub_of, hub_option, printable
from ssekit.cli.stats import stats_of_server
from ssekit.errors import BrokerUnavailable, HubClosed, SSEError
from ssekit.hub import default_url

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from ssekit.hub.stats import Numbers, Stats

BARS = "▁▂▃▄▅▆▇█"
HISTORY = 20
"""Looks that a sparkline shows."""
MOST_CHANNELS = 1000
"""Channels that are remembered; beyond that, the least busy ones are forgotten."""
EPILOG = """\
keys:
  s   sort by the next column       r   reverse the order
  w   workers only, channels only, or both
  q   end, as does Ctrl-C

If standard output is no terminal, the table is printed once.

examples:
  ssekit top
  ssekit top --url redis://localhost/0 --every 5
"""


class Column(NamedTuple):
    """A column of the workers' table: the widest ones are left out where there is no room."""

    title: str
    value: Callable[[Row], float]
    text: Callable[[Row], str]
    width: int
    """The columns that a terminal must have for it."""


class Row(NamedTuple):
    """One worker, with what it did each second since the last look."""

    pid: int
    now: Numbers
    rates: Mapping[str, float]
    history: deque[float]


COLUMNS = [
    Column("worker", lambda row: row.pid, lambda row: str(row.pid), 0),
    Column("streams", lambda row: row.now.streams, lambda row: f"{row.now.streams:,}", 0),
    Column("events/s", lambda row: row.rates["events"], lambda row: rate(row.rates["events"]), 0),
    Column("lagging", lambda row: row.now.lagging, lambda row: f"{row.now.lagging:,}", 50),
    Column("behind", lambda row: row.now.behind_events or 0, lambda row: _behind(row.now), 60),
    Column("KB/s", lambda row: row.rates["bytes"], lambda row: rate(row.rates["bytes"] / 1e3), 60),
    Column("opened/s", lambda row: row.rates["opened"], lambda row: rate(row.rates["opened"]), 70),
    Column("iterated", lambda row: row.now.iterated, lambda row: f"{row.now.iterated:,}", 80),
    Column("MB held", lambda row: row.now.entry_bytes, lambda row: _megabytes(row.now), 80),
]


def options(parser: argparse.ArgumentParser) -> None:
    parser.description = "Show workers and channels of a running server, kept up to date."
    parser.epilog = EPILOG
    hub_option(parser)
    parser.add_argument(
        "--every", type=float, default=1.0, metavar="SECONDS", help="between looks (default: 1)"
    )


def run(arguments: argparse.Namespace) -> int:
    if not 0.1 <= arguments.every <= 60:
        raise Usage("--every needs seconds from 0.1 to 60")
    try:
        from rich.console import Console
        from rich.live import Live
    except ImportError as error:
        raise SSEError("top needs rich: pip install 'ssekit[top]'") from error
    console = Console()
    with hub_of(arguments) as hub:
        screen = Screen()
        screen.look(stats_of_server(hub))
        channels = Channels(arguments.url or default_url())
        threading.Thread(target=channels.follow, daemon=True).start()
        if not console.is_terminal:
            time.sleep(arguments.every)  # A rate needs two looks.
            screen.look(hub.stats())
            screen.channels = channels.rates(arguments.every)
            console.print(screen.drawn(console.width, 1_000_000))
            return 0
        with keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(screen.drawn(console.width, console.height), refresh=True)
                key = pressed(arguments.every)
                if key == "q":
                    return 0
                if key:
                    screen.press(key)
                else:
                    screen.look(hub.stats())
                    screen.channels = channels.rates(arguments.every)


class Screen:
    """What is shown, and in which order."""

    def __init__(self) -> None:
        self.channels: dict[str, deque[float]] = {}
        self._column = 2
        self._reverse = True
        self._width = 0
        self._shows = 0  # both, workers, channels
        self._at = 0.0
        self._stats: Stats | None = None
        self._rows: dict[int, Row] = {}

    def press(self, key: str) -> None:
        """Do what a key is for."""
        if key == "s":
            shown = [number for number, column in enumerate(COLUMNS) if self._width >= column.width]
            self._column = next((number for number in shown if number > self._column), 0)
        elif key == "r":
            self._reverse = not self._reverse
        elif key == "w":
            self._shows = (self._shows + 1) % 3

    def look(self, stats: Stats) -> None:
        """Take the next numbers."""
        now = time.monotonic()
        seconds, self._at = max(now - self._at, 0.001), now
        rows: dict[int, Row] = {}
        for pid, numbers in stats.workers.items():
            before = self._rows.get(pid)
            rates = {
                name: (getattr(numbers, name) - getattr(before.now, name)) / seconds
                if before
                else 0.0
                for name in ("events", "bytes", "opened")
            }
            history = before.history if before else deque(maxlen=HISTORY)
            history.append(rates["events"])
            rows[pid] = Row(pid, numbers, rates, history)
        self._rows, self._stats = rows, stats

    def drawn(self, width: int, height: int) -> RenderableType:
        """Return what fits into a terminal of this size."""
        from rich.console import Group

        self._width = width
        parts: list[RenderableType] = [self._title(width)]
        rooms = max(height - 6, 2)
        if self._shows != 2:
            some = rooms if self._shows else max(rooms // 2, min(len(self._rows), rooms - 3))
            parts.append(self._workers(width, some))
            rooms -= min(len(self._rows), some) + 3
        if self._shows != 1:
            parts.append(self._channels(width, max(rooms, 1)))
        return Group(*parts)

    def _title(self, width: int) -> RenderableType:
        from rich.text import Text

        stats = self._stats
        if stats is None:
            return Text("")
        server = stats.server
        text = f"{server.streams:,} streams in {len(stats.workers)} workers"
        if server.away or stats.end is None:
            text += ", log away"
        elif server.behind_events:
            text += f", {server.behind_events:,} behind"
        rejected = sum(server.rejected.values())
        text += f", {rejected:,} rejected" if rejected else ""
        return Text(text, style="bold", no_wrap=True, overflow="ellipsis")

    def _workers(self, width: int, most: int) -> RenderableType:
        columns = [column for column in COLUMNS if width >= column.width]
        chosen = COLUMNS[self._column]
        table = _table()
        for column in columns:
            mark = ("↓" if self._reverse else "↑") if column is chosen else ""
            table.add_column(column.title + mark, justify="right", no_wrap=True)
        if width >= 45:
            table.add_column("", no_wrap=True)
        rows = sorted(self._rows.values(), key=chosen.value, reverse=self._reverse)
        for row in rows[:most]:
            spark = [sparkline(row.history)] if width >= 45 else []
            table.add_row(*(column.text(row) for column in columns), *spark)
        return table

    def _channels(self, width: int, most: int) -> RenderableType:
        from rich.text import Text

        table = _table()
        table.add_column("channel", no_wrap=True, overflow="ellipsis", max_width=width // 2)
        table.add_column("published/s", justify="right", no_wrap=True)
        if width >= 45:
            table.add_column("", no_wrap=True)
        found = sorted(self.channels.items(), key=lambda item: (-sum(item[1]), item[0]))
        for channel, history in found[:most]:
            spark = [sparkline(history)] if width >= 45 else []
            table.add_row(Text(printable(channel)), rate(history[-1]), *spark)
        return table


class Channels:
    """How many events a second each channel gets, as seen in the log."""

    def __init__(self, url: str) -> None:
        self._broker = brokers.connect(url)
        self._counted: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._history: dict[str, deque[float]] = {}

    def follow(self) -> None:
        """Read the log's new entries, for as long as the process lives."""
        cursor = None
        while True:
            try:
                cursor = cursor or self._broker.tip()
                entries, cursor = self._broker.follow(cursor, 5.0)
            except HubClosed:
                return
            except (HistoryLost, BrokerUnavailable):
                cursor = None
                time.sleep(1)
                continue
            with self._lock:
                self._counted.update(
                    entry.channel for entry in entries if not entry.channel.startswith(INTERNAL)
                )

    def rates(self, seconds: float) -> dict[str, deque[float]]:
        """Return the rates of the last looks, by channel, this one's last."""
        with self._lock:
            counted, self._counted = self._counted, Counter()
        for channel in counted.keys() - self._history.keys():
            self._history[channel] = deque(maxlen=HISTORY)
        for channel, history in list(self._history.items()):
            history.append(counted[channel] / seconds)
            if not any(history):
                del self._history[channel]
        if len(self._history) > MOST_CHANNELS:
            busiest = sorted(self._history, key=lambda channel: -sum(self._history[channel]))
            self._history = {channel: self._history[channel] for channel in busiest[:MOST_CHANNELS]}
        return self._history


@contextmanager
def keys() -> Iterator[Callable[[float], str]]:
    """Give a function that waits for a key up to some seconds, and returns "" without one."""
    if not sys.stdin.isatty():
        yield _wait
        return
    file = sys.stdin.fileno()
    before = termios.tcgetattr(file)
    tty.setcbreak(file)

    def pressed(seconds: float) -> str:
        if not select.select([file], [], [], seconds)[0]:
            return ""
        try:
            key = os.read(file, 1)
        except OSError:  # EIO: the terminal is gone.
            key = b""
        return key.decode("ascii", "replace") or "q"

    try:
        yield pressed
    finally:
        with suppress(termios.error):
            termios.tcsetattr(file, termios.TCSADRAIN, before)


def _wait(seconds: float) -> str:
    time.sleep(seconds)
    return ""


def sparkline(values: deque[float]) -> str:
    """Return a small picture of some numbers, the highest as the highest bar."""
    most = max(values, default=0)
    steps = len(BARS) - 1
    return "".join(BARS[round(value / most * steps)] if most > 0 else BARS[0] for value in values)


def rate(value: float) -> str:
    """Return a rate with as many digits as it deserves."""
    return f"{value:,.1f}" if 0 < value < 10 else f"{value:,.0f}"


def _behind(numbers: Numbers) -> str:
    return "?" if numbers.behind_events is None else f"{numbers.behind_events:,}"


def _megabytes(numbers: Numbers) -> str:
    return f"{numbers.entry_bytes / 1e6:,.1f}"


def _table() -> Table:
    from rich.table import Table

    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
