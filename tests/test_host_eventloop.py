"""What a process does for all its streams: heartbeats, the clock of a turn, connections."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys

import gevent
import pytest

from ssekit.host import tcp
from ssekit.host.chunks import LAST_CHUNK, chunk
from ssekit.host.heartbeats import Heartbeats
from ssekit.host.turns import NextTurn, wait_for_next_turn
from tests.servers import ROOT
from tests.waiting import until


class Sender:
    """Counts its heartbeats; perhaps the last of them removes another."""

    def __init__(self, heartbeat: float, wrote_at: float = 0.0) -> None:
        self.heartbeat = heartbeat
        self.wrote_at = wrote_at
        self.beats: list[float] = []

    def beat(self) -> None:
        self.wrote_at = NOW[0]
        self.beats.append(NOW[0])


NOW = [0.0]


def swept(heartbeats: Heartbeats, seconds: float) -> None:
    """Sweep every 50 ms of a clock that this test turns."""
    for _ in range(round(seconds / 0.05)):
        NOW[0] += 0.05
        heartbeats.sweep(NOW[0])


@pytest.fixture(autouse=True)
def _clock() -> None:
    NOW[0] = 0.0


def test_each_sender_beats_when_its_own_heartbeat_is_due() -> None:
    heartbeats = Heartbeats()
    fast, slow = Sender(1.0), Sender(10.0)
    heartbeats.add(slow)
    heartbeats.add(fast)
    swept(heartbeats, 21)
    assert len(fast.beats) in (19, 20, 21)
    assert len(slow.beats) == 2
    assert all(beat - n * 10 < 0.6 for n, beat in enumerate(slow.beats, 1))


def test_one_that_has_written_beats_later_and_one_that_was_discarded_not_at_all() -> None:
    heartbeats = Heartbeats()
    writing, leaving = Sender(1.0), Sender(1.0)
    for sender in (writing, leaving):
        heartbeats.add(sender)
    heartbeats.discard(leaving)
    for _ in range(10):
        swept(heartbeats, 0.5)
        writing.wrote_at = NOW[0]
    assert writing.beats == leaving.beats == []


def test_a_heartbeat_may_discard_the_next() -> None:
    heartbeats = Heartbeats()
    pair = [Sender(1.0), Sender(1.0)]
    for sender, other in (pair, pair[::-1]):
        heartbeats.add(sender)
        sender.beat = lambda other=other: heartbeats.discard(other)  # type: ignore[method-assign]
    swept(heartbeats, 2)


def test_a_socket_is_seen_between_two_slices_of_work() -> None:
    here, there = socket.socketpair()
    seen: list[str] = []

    def work() -> None:
        there.send(b"!")
        seen.append("slice")
        if seen.count("slice") < 5:
            turn.ask()

    def read() -> None:
        here.recv(10)
        seen.append("socket")

    turn = NextTurn(work)
    watcher = gevent.get_hub().loop.io(here.fileno(), 1)
    watcher.start(read)
    turn.ask()
    turn.ask()  # It is asked already.
    with here, there:
        gevent.sleep(0.1)
        watcher.close()
    # What it sends in one turn is ready in the next, in which it may come before.
    assert "".join(word[1] for word in seen).count("lll") == 0, seen
    assert seen[-1] == "socket"


def test_a_greenlet_that_lets_others_run_lets_them_be_read_from_their_sockets() -> None:
    here, there = socket.socketpair()
    received: list[bytes] = []
    watcher = gevent.get_hub().loop.io(here.fileno(), 1)
    watcher.start(lambda: received.append(here.recv(10)))
    with here, there:
        there.send(b"!")
        wait_for_next_turn()
        wait_for_next_turn()
        watcher.close()
    assert received == [b"!"]


@pytest.mark.parametrize("kind", ["libev-cext", "libuv-cffi"])
def test_a_turn_is_measured_by_the_clock_of_the_loop(kind: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.apps.loop_clock"],
        env={**os.environ, "GEVENT_LOOP": kind},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    loop, first, after = done.stdout.split()
    assert kind.partition("-")[0] in loop
    assert float(first) == 0.0
    assert 0.2 <= float(after) < 1.0


def test_a_block_is_framed_as_a_chunk_where_the_body_has_chunks() -> None:
    assert chunk(b"data: x\n\n") == b"9\r\ndata: x\n\n\r\n"
    assert chunk(b"data: x\n\n", False) == b"data: x\n\n"
    assert LAST_CHUNK == b"0\r\n\r\n"


def test_no_heartbeat_makes_a_short_stall_a_vanished_host() -> None:
    assert tcp.patience(1.0) == tcp.STALL
    assert tcp.patience(15.0) == 15.0


def test_a_system_without_tcp_info_knows_of_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delattr(socket, "TCP_INFO", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert tcp.silent_for(listener.fileno()) == 0.0


def test_what_the_other_host_has_not_taken_is_seen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        reader = socket.socket()
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect(listener.getsockname())
        writer, _ = listener.accept()
        with reader, writer:
            assert tcp.has_sent_all(writer.fileno())
            writer.setblocking(False)
            written = 0
            with contextlib.suppress(BlockingIOError):
                while True:
                    written += writer.send(b"x" * 65536)
            assert not tcp.has_sent_all(writer.fileno())
            while written:
                written -= len(reader.recv(65536))
            until(lambda: tcp.has_sent_all(writer.fileno()))
