"""The bench: its smallest run from end to end, and the load, by which all its figures are taken."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import fanout, load, metrics, table
from bench.load import Load
from bench.processes import processor_seconds
from bench.results import Results
from bench.settings import Settings
from bench.subjects import LOOP, QUEUE, YARDSTICK, Subject
from tests.commands import program
from tests.components import need
from tests.ports import free_port
from tests.servers import ROOT

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_the_smallest_bench_runs_and_its_table_has_a_row_for_each_subject(tmp_path: Path) -> None:
    need("cc")
    command = [sys.executable, "-m", "bench", "fanout", "--quick", "--scale", "0.02"]
    command += ["--only", f"{QUEUE},ssekit", "--json", str(tmp_path / "figures")]
    command += ["--picture", str(tmp_path / "picture.svg")]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    rows = [line for line in lines if line.strip().startswith((LOOP, QUEUE, "ssekit"))]
    assert [row[2:23].strip() for row in rows] == [LOOP, QUEUE, "ssekit"]
    assert any("deliveries a second at saturation, of the C loop's" in line for line in lines)
    figures = json.loads((tmp_path / "figures").read_text())
    cells = figures["benches"]["fanout"]["rows"]["ssekit"]
    assert cells["saturation: µs"]["median"] > 0
    picture = ET.parse(tmp_path / "picture.svg")
    texts = [element.text for element in picture.iter() if element.tag.endswith("text")]
    assert {LOOP, QUEUE, "ssekit"} <= set(texts)


def test_the_command_names_every_bench_and_knows_every_subject() -> None:
    help_text = subprocess.run(
        ["scripts/bench", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for word in ["fanout", "slow-readers", "cgi-start", "chaos", "sse-starlette", "Nchan"]:
        assert word in help_text
    command = [sys.executable, "-m", "bench", "fanout", "--only", "Workerman"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no such subject: Workerman" in done.stderr


def test_a_subject_that_is_not_installed_is_skipped_with_the_reason() -> None:
    results = Results()
    absent = Subject("absent", "", YARDSTICK.start, lambda: "libabsent not installed")
    assert fanout.available("fanout", Settings(), results, [YARDSTICK, absent]) == [YARDSTICK]
    assert results.notes["fanout"] == ["absent skipped: libabsent not installed"]


def test_a_target_is_held_against_the_median_of_the_rounds() -> None:
    results = Results()
    results.title("memory", "what it is about")
    for value in (0.7, 9.0, 0.5):
        results.put("memory", "ssekit", {"KB each": value})
    results.at_most("memory", "KB each", results.median("memory", "ssekit", "KB each"), 0.8)
    results.at_least("memory", "more", 1.0, 2)
    results.at_least("memory", "not measured", None, 2)
    assert [target.met for target in results.targets] == [True, False]
    text = table.table(results, "memory")
    assert "met      KB each: 0.70 (at most 0.8)" in text
    assert "NOT MET  more: 1.00 (at least 2)" in text


def test_the_interval_of_a_median_grows_narrower_with_more_values() -> None:
    assert metrics.interval([3.0, 1.0, 2.0]) == (1.0, 3.0)
    # Of a hundred, 95 in 100 samples have the true median between their 41st and 61st.
    assert metrics.interval([float(value) for value in range(100)]) == (40.0, 60.0)


def test_the_processor_time_of_a_process_that_has_just_answered_is_complete() -> None:
    with subprocess.Popen(
        program("burns"), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as burning:
        assert burning.stdin is not None
        assert burning.stdout is not None
        used = []
        for _ in range(30):
            before = processor_seconds([burning.pid])
            burning.stdin.write("\n")
            burning.stdin.flush()
            burning.stdout.readline()
            used.append(processor_seconds([burning.pid]) - before)
    # Two milliseconds each; a busy machine takes the processor away in some rounds.
    assert sum(0.001 < one < 0.0035 for one in used) >= 20, used


class ScriptedStream:
    """Answers every request with the same bytes, in pieces of one byte or in one, and closes."""

    def __init__(self, answer: bytes, piece: int) -> None:
        self.port = free_port()
        self.requests: list[bytes] = []
        self._answer = answer
        self._piece = piece
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.requests.append(connection.recv(4096))
                for start in range(0, len(self._answer), self._piece):
                    connection.sendall(self._answer[start : start + self._piece])

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)


@pytest.fixture
def clients() -> Iterator[Load]:
    need("cc")
    with load.clients(0) as started:
        yield started


def event(sequence: int, newline: str = "\n") -> bytes:
    data = f"@{sequence},{time.monotonic_ns()},xxx"
    return newline.join([f"data: {data}", f"id: 7-{sequence}", "", ""]).encode()


def chunked(*blocks: bytes) -> bytes:
    return b"".join(b"%X\r\n%b\r\n" % (len(block), block) for block in blocks)


@pytest.mark.parametrize("piece", [1, 1_000_000])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_the_load_counts_what_is_lost_repeated_and_cut(
    clients: Load, piece: int, newline: str
) -> None:
    blocks = [b":\n", *(event(sequence, newline) for sequence in (1, 2, 5, 5, 6))]
    # Two events of one chunk, and a closing retry; then the stream ends as the protocol ends one.
    body = chunked(*blocks, event(7) + event(8), b"retry: 100\n") + b"0\r\n\r\n"
    server = ScriptedStream(HEAD + body, piece)
    try:
        clients.open(1, server.port, "/events")
        report = clients.ask("ended 10")["0"]
    finally:
        server.close()
    counted = {name: report[name] for name in ("deliveries", "gaps", "repeats", "ended", "cut")}
    assert counted == {"deliveries": 7, "gaps": 2, "repeats": 1, "ended": 1, "cut": 0}
    assert report["closing_retries"] == 1
    assert 0 < report["p50"] <= report["p99"] <= report["max"] * 1.02 < 60_000_000


def test_the_load_comes_back_with_the_last_id_that_was_dispatched(clients: Load) -> None:
    # The second event is cut before its blank line: it has not happened, and its id neither.
    server = ScriptedStream(HEAD + chunked(event(1), event(2)[:-1]), 1_000_000)
    try:
        clients.open(1, server.port, "/events", flags="r")
        clients.wait(2, 0.3)
        assert clients.report()["came_back"] > 0
    finally:
        server.close()
    assert b"Last-Event-ID" not in server.requests[0]
    assert b"\r\nLast-Event-ID: 7-1\r\n" in server.requests[1]
    assert clients.report()["cut"] > 0
