"""No loss and no duplicate while servers, brokers and connections are killed, counted at clients.

The scenarios are those of `tests.test_delivery` with more of everything: 50 viewers and 10,000
events each.  A publish that returned must arrive exactly once at every viewer that had joined, in
order, and one that raised at most once.  `bench.sessions` does the same for keys, ends and
producers, on each kind of log.  Two figures stand beside them: how long an event of
another process takes to a viewer, and what idle viewers cost.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import sessions
from bench.logs import KINDS, redis_server
from bench.processes import BenchError, descriptors
from bench.results import Results
from bench.settings import Settings
from ssekit import Hub
from tests.crowd import Crowd, Publishers, Viewer
from tests.servers import Server, gunicorn
from tests.waiting import until

NAME = "chaos"
APP = "tests.apps.news:app"
VIEWERS, EVENTS, IDLE = 50, 10_000, 500
CHANNELS = ("news", "sport")


class Stage:
    """One scenario's server, viewers and publishers."""

    def __init__(self, server: Server, crowd: Crowd, publishers: Publishers, events: int) -> None:
        self.server = server
        self.crowd = crowd
        self.publishers = publishers
        self.events = events

    def publish(self, *, programs: int = 4, refused: float = 0.0) -> None:
        """Publish all events from several programs at once, at some thousand a second.

        ``refused`` is the share that is likely to be refused, by a broker that is away.
        """
        for n in range(programs):
            each = round(self.events * (1 + refused)) // programs
            self.publishers.process(CHANNELS[n % 2], f"program {n}", each, 0.001)

    def while_publishing(self, calamity: Callable[[], None], pause: float) -> None:
        """Let a calamity happen again and again until the publishers are done."""
        time.sleep(pause)
        while self.publishers.busy:
            calamity()
            time.sleep(pause)


@contextmanager
def _stage(
    settings: Settings,
    url: str,
    *options: str,
    patience: float | None = None,
    naps: float = 0.0,
    fanout: str = "on",
) -> Iterator[Stage]:
    """A server with viewers of whom every fourth stays, unless all are to be alike."""
    count = settings.scaled(VIEWERS, 8)
    env = {"HUB": url, "HISTORY": "100000", "SSEKIT_FANOUT": fanout, "BEAT": "1"}
    with ExitStack() as stack:
        server = stack.enter_context(gunicorn(APP, *options, env=env))
        viewers = (
            Viewer(
                server.url,
                CHANNELS if n % 4 == 1 else [CHANNELS[n % 2]],
                patience=patience or (None if n % 4 == 0 else 200),
                naps=naps if n % 2 else 0.0,
            )
            for n in range(count)
        )
        crowd = stack.enter_context(Crowd(viewers))
        yield Stage(server, crowd, Publishers(url), settings.scaled(EVENTS, 400))


def _nothing_happens(settings: Settings, folder: Path) -> Iterator[Stage]:
    with _stage(settings, _file(folder)) as stage:
        stage.publish()
        yield stage


def _four_kinds_of_publishers(settings: Settings, folder: Path) -> Iterator[Stage]:
    url = _file(folder)
    with _stage(settings, url, "--workers", "4") as stage:
        part = stage.events // 4
        stage.publishers.process("news", "program", part)
        stage.publishers.command_line("sport", "command line", part)
        stage.publishers.script("news", "script", min(part, 100))
        for n in range(2):
            stage.publishers.request(f"{stage.server.url}/publish", "sport", f"request {n}", part)
        yield stage


def _back_and_forth(settings: Settings, folder: Path) -> Iterator[Stage]:
    """Each of some thousands of replays races with what is published before it goes live."""
    with _stage(settings, _file(folder), "--workers", "4", patience=10) as stage:
        stage.publish()
        yield stage


def _slow_readers(settings: Settings, folder: Path) -> Iterator[Stage]:
    with _stage(settings, _file(folder), naps=0.5) as stage:
        stage.publishers.process("news", "large", stage.events // 10, size=8000)
        yield stage


def _dying_workers(settings: Settings, folder: Path, fanout: str = "on") -> Iterator[Stage]:
    with _stage(settings, _file(folder), "--workers", "4", fanout=fanout) as stage:

        def kill() -> None:
            with contextlib.suppress(ProcessLookupError, IndexError):
                os.kill(stage.server.children()[-1], signal.SIGKILL)

        stage.publish()
        stage.while_publishing(kill, 1.5)
        yield stage


def _dying_workers_portably(settings: Settings, folder: Path) -> Iterator[Stage]:
    return _dying_workers(settings, folder, "off")


def _reloads(settings: Settings, folder: Path) -> Iterator[Stage]:
    with _stage(settings, _file(folder), "--workers", "2") as stage:
        stage.publish()
        stage.while_publishing(lambda: stage.server.process.send_signal(signal.SIGHUP), 2.5)
        yield stage


def _dying_redis(settings: Settings, folder: Path) -> Iterator[Stage]:
    with (
        redis_server() as redis,
        _stage(settings, redis.url, "--workers", "2") as stage,
    ):

        def kill() -> None:
            redis.kill()
            time.sleep(0.3)
            redis.start()

        stage.publish(refused=0.05)
        stage.while_publishing(kill, 2.0)
        yield stage


SCENARIOS: dict[str, Callable[[Settings, Path], Iterator[Stage]]] = {
    "publishers and viewers apart": _nothing_happens,
    "four workers, four kinds of publishers": _four_kinds_of_publishers,
    "viewers that come back all the time": _back_and_forth,
    "viewers that stop reading": _slow_readers,
    "workers killed": _dying_workers,
    "workers killed, portably": _dying_workers_portably,
    "SIGHUP": _reloads,
    "redis killed, with its file": _dying_redis,
}


def run(settings: Settings, results: Results) -> None:
    """Run every scenario once, and the two figures."""
    results.title(NAME, "what arrived, counted at every viewer")
    # Servers and viewers share all cores here: nothing is timed but the two figures.
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(range(os.cpu_count() or 1)))
    try:
        for name, scenario in SCENARIOS.items():
            if settings.wants("redis" if name.startswith("redis") else "sqlite"):
                _play(settings, results, name, scenario)
        for kind in filter(settings.wants, KINDS):
            _play_sessions(settings, results, kind)
        if settings.wants("sqlite"):
            _figures(settings, results)
    finally:
        os.sched_setaffinity(0, mine)


def _play(
    settings: Settings,
    results: Results,
    name: str,
    scenario: Callable[[Settings, Path], Iterator[Stage]],
) -> None:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ssekit-chaos-") as folder:
        for stage in scenario(settings, Path(folder)):
            stage.publishers.join(300)
            faults = stage.crowd.faults(stage.publishers, 120)
            viewers = stage.crowd.viewers
            columns = {
                "viewers": len(viewers),
                "published": len(stage.publishers.stored),
                "unanswered": len(stage.publishers.uncertain),
                "arrived": stage.crowd.arrived,
                "connections": sum(viewer.connections for viewer in viewers),
                **{field.replace("_", " "): n for field, n in faults._asdict().items()},
                "seconds": time.monotonic() - began,
            }
            results.put(NAME, name, dict(columns))
            results.at_most(NAME, f"{name}: faults of all kinds", sum(faults), 0)


def _play_sessions(settings: Settings, results: Results, kind: str) -> None:
    name, began = f"{kind}: keys, ends, producers", time.monotonic()
    try:
        columns = sessions.play(settings, kind)
    except BenchError as error:
        results.note(NAME, f"{name}: {error}")
        return
    results.put(NAME, name, {**columns, "seconds": time.monotonic() - began})
    faults = sum(columns[field] or 0 for field in sessions.FAULTS)
    results.at_most(NAME, f"{name}: faults of all kinds", faults, 0)
    waited = columns["until lost, s"]
    results.at_most(NAME, f"{name}: seconds until a killed producer's channel ended", waited, 15)


def _figures(settings: Settings, results: Results) -> None:
    with tempfile.TemporaryDirectory(prefix="ssekit-chaos-") as folder:
        url = _file(Path(folder))
        hub = Hub(url)
        with gunicorn(APP, env={"HUB": url, "BEAT": "15"}) as server:
            viewer = Viewer(server.url, ["news"])
            until(lambda: viewer.joined, 10)
            waits = []
            for n in range(200):
                published = time.perf_counter()
                hub.publish("news", n)
                while len(viewer.seen) <= n:
                    time.sleep(0.0002)
                waits.append(time.perf_counter() - published)
            worker = server.children()[0]
            before = descriptors(worker)
            idle = [Viewer(server.url, ["news"]) for _ in range(settings.scaled(IDLE, 20))]
            with Crowd(idle):
                time.sleep(2)
                each = (descriptors(worker) - before) / len(idle)
                used, seconds = _cpu(worker), 20 * min(1.0, settings.scale * 4)
                time.sleep(seconds)
                share = (_cpu(worker) - used) / seconds * 100
            viewer.end()
        hub.close()
    row = f"one file, {len(idle)} idle viewers"
    median = statistics.median(waits) * 1000
    columns = {"event, ms": median, "core, %": share, "descriptors each": each}
    results.put(NAME, row, dict(columns))
    results.at_most(NAME, "an event of another process, ms at the median", median, 10)
    results.at_most(NAME, f"{len(idle)} idle viewers, % of a core", share, 0.5)
    results.at_most(NAME, "descriptors of an idle viewer, its connection's included", each, 1)


def _cpu(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _file(folder: Path) -> str:
    return f"sqlite:///{folder}/hub.db"
