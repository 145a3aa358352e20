"""How far a slow client lags: with keys by the newest of each at most, however slow it is."""

from __future__ import annotations

import random
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssekit import Decoder, Event, Hub
from ssekit.hub.pieces import View
from ssekit.hub.reader import KEEPS_UP, Reader
from tests.clients import Client
from tests.conftest import URLS, examples, new_logs
from tests.servers import Server, gunicorn
from tests.waiting import until

APP = "tests.apps.rates:app"
SECONDS = 8
RATE = 4096  # bytes that the slow client reads in a second


def slow(server: Server) -> tuple[list[Event], list[float]]:
    """Read at `RATE` until the final values have come: the events, and how old each was."""
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.connect(("127.0.0.1", server.port))
    reader.settimeout(20)
    reader.sendall(b"GET / HTTP/1.0\r\nAccept: text/event-stream\r\n\r\n")
    decoder = Decoder()
    events: list[Event] = []
    ages: list[float] = []
    head, done = b"", time.monotonic()
    while b"\r\n\r\n" not in head:
        head += reader.recv(1)
    while time.monotonic() - done < 60:
        for event in decoder.feed(reader.recv(RATE // 10)):
            if event.event == "message":
                events.append(event)
                ages.append(time.time() - float(event.data.split()[2]))
                if final and {each.data.split()[1] for each in events[-5:]} == set(final):
                    reader.close()
                    return events, ages
        time.sleep(0.1)
    raise AssertionError(f"the final values have not come; the last were {events[-5:]}")


final: list[str] = []


def test_a_client_that_reads_4_kb_a_second_is_bounded_by_the_number_of_keys() -> None:
    final.clear()
    with gunicorn(APP) as server, Client(server.url, version="1.1") as quick:
        quick.wait(1)
        with ThreadPoolExecutor() as pool:
            slowly = pool.submit(slow, server)
            quickly = pool.submit(read_while_it_changes, quick)
            changes = get_long(f"{server.url}/change?seconds={SECONDS}")
            final.append(changes)
            events, ages = slowly.result(90)
            quickly.result(20)
        # One that keeps up gets each change.
        assert len(quick.events) == 5 * int(changes) + 1
        newest: dict[str, int] = {}
        for event in events:
            key, number = event.data.split()[:2]
            assert int(number) > newest.get(key, 0), "an older value came"
            newest[key] = int(number)
        assert len(events) < 5 * int(changes) / 2, "it has skipped nothing"
        # What its kernel has taken (the loopback's buffers) is the rest of the delay: without
        # keys the lag would grow with each second, to most of the whole time.
        assert max(ages[len(ages) // 2 :]) < kernel_seconds() + 2.0


def read_while_it_changes(client: Client) -> None:
    while not final or len(client.events) < 5 * int(final[0]) + 1:
        client.read(0.1)


def kernel_seconds() -> float:
    """How long the client reads on what the kernels hold: its window, and what is unsent here."""
    return (16 * 1024 + 2 * 4096 + 4608) / RATE


def get_long(url: str) -> str:
    with Client(url, timeout=SECONDS + 30) as client:
        return client.until_end().decode()


MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.sampled_from("abc")),
        st.tuples(st.just("remove"), st.sampled_from("abc")),
        st.tuples(st.just("unkeyed"), st.integers(1, 4)),
        st.tuples(st.just("read"), st.integers(1, 3)),
        st.tuples(st.just("cut"), st.integers(0, 3)),
    ),
    max_size=60,
)


@pytest.mark.parametrize("kind", URLS)
def test_the_last_value_seen_of_each_key_is_the_last_published(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """One reader that is cut at random events, while the log trims what it may."""
    urls = new_logs(kind, request, tmp_path)

    @settings(
        max_examples=examples({"memory": 60, "postgresql": 6}.get(kind, 20)),
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(moves=MOVES, seed=st.integers(0, 2**16))
    def check(moves: list[tuple[str, object]], seed: int) -> None:
        play(next(urls), moves, random.Random(seed))

    check()


def play(url: str, moves: list[tuple[str, object]], chance: random.Random) -> None:
    """Publish in one process, as it were, and read in another, where the log can be shared."""
    with Hub(url, history=2) as hub, ExitStack() as stack:
        reading = hub if url == "memory:" else stack.enter_context(Hub(url))
        client = CutClient(reading)
        state: dict[str, str] = {}
        for number, (move, what) in enumerate(moves):
            if move == "publish":
                hub.publish("c", f"{what} {number}", key=str(what))
                state[str(what)] = f"{what} {number}"
            elif move == "remove":
                if hub.remove("c", str(what)):
                    del state[str(what)]
            elif move == "unkeyed":
                for _ in range(int(str(what))):
                    client.sent.append(str(hub.publish("c", f"- {number}").id))
            elif move == "read":
                client.read(int(str(what)))
            else:
                client.cut(chance)
        client.read_all()
        assert client.state == state
        client.check_unkeyed()


class CutClient:
    """What a page does with a channel's events: keys, their removal, and a reset."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.sent: list[str] = []  # ids of the events without a key
        self.state: dict[str, str] = {}
        self._newest: dict[str, int] = {}
        self._unkeyed: list[str] = []
        self._resets = 0
        self._last = ""
        self._events: list[Event] = []
        self._reader = self._connect()
        self.read(1)  # It has joined.

    def _connect(self) -> Reader:
        follower = self.hub._opened.follower()
        until(lambda: follower.ready)
        return Reader(follower, View(frozenset({"c"})), self._last)

    def cut(self, chance: random.Random) -> None:
        """Lose the connection after some of what was on its way."""
        piece = self._reader.next_piece()
        if piece is not None:
            events = Decoder(last_event_id=self._last).feed(
                piece.block[: chance.randrange(len(piece.block) + 1)]
            )
            for event in events:
                self._see(event)
        self._reader.close()
        self._reader = self._connect()

    def read(self, pieces: int) -> None:
        for _ in range(pieces):
            piece = self._reader.next_piece()
            if piece is None:
                return
            for event in Decoder(last_event_id=self._last).feed(piece.block):
                self._see(event)

    def read_all(self) -> None:
        follower = self.hub._opened.follower()
        tip = self.hub.position()
        until(lambda: follower.recent.tip == tip)
        while (self._reader.epoch, self._reader.position) != (
            follower.recent.epoch,
            follower.recent.end,
        ) or not self._reader.at_end():
            self.read(1)

    def _see(self, event: Event) -> None:
        self._last = event.id or ""
        if event.event == "stream-reset":
            self.state.clear()
            self._unkeyed.clear()
            self._resets += 1
        elif event.event == "stream-remove":
            self.state.pop(event.data.split('"')[-2], None)
        elif event.event == "message":
            key, number = event.data.split()
            if key == "-":
                self._unkeyed.append(str(event.id))
                return
            assert int(number) >= self._newest.get(key, -1), "an older value came"
            self._newest[key] = int(number)
            self.state[key] = event.data

    def check_unkeyed(self) -> None:
        """Each came once and in order, from where the client joined or was reset."""
        assert self._unkeyed == self.sent[len(self.sent) - len(self._unkeyed) :]
        if not self._resets:
            assert self._unkeyed == self.sent


def test_publishers_are_not_held_up_by_a_reader_that_never_reads() -> None:
    with Hub() as hub:
        events = hub.subscribe("c")
        next(events)
        began = time.monotonic()
        threads = [
            threading.Thread(target=lambda: [hub.publish("c", n, key="a") for n in range(500)])
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert time.monotonic() - began < 10
        time.sleep(2 * KEEPS_UP)
        assert next(events).data == "499"
        events.close()
