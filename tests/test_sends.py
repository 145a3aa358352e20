"""The same bytes to many sockets: each takes all, some or none, and what it took is told."""

from __future__ import annotations

import errno
import os
import random
import socket
from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from ssekit.host import aio, batch_send
from ssekit.host.aio import Aio
from ssekit.host.batch_send import GONE, WAYS, write_to_each
from ssekit.host.kernel_queue import LARGEST, KernelQueue
from tests.components import need_queue
from tests.seccomp import IO_URING, forbid

Pair = tuple[socket.socket, socket.socket]
DATA = b"x" * 1000
AIO = aio._NUMBERS.get(os.uname().machine, aio._GENERIC)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each way in turn, for any number of sockets."""
    with sending(request.param, monkeypatch):
        yield


@pytest.fixture(params=[way for way, queues in WAYS.items() if queues])
def queue(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[KernelQueue]:
    """Each queue in turn, for any number of sockets."""
    with sending(request.param, monkeypatch) as queue:
        assert queue is not None
        yield queue


@contextmanager
def sending(way: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[KernelQueue | None]:
    if WAYS[way]:
        need_queue(way).close()
    monkeypatch.setenv("SSEKIT_FANOUT", way)
    monkeypatch.setattr(batch_send, "BATCH", 1)
    monkeypatch.setattr(KernelQueue, "entries", 128)
    batch_send._queue.cache_clear()
    queue = batch_send._queue()
    try:
        yield queue
    finally:
        if queue is not None:
            queue.close()
        batch_send._queue.cache_clear()


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    """More than two batches of connections."""
    with ExitStack() as stack:
        made = [socket.socketpair() for _ in range(300)]
        for pair in made:
            for end in pair:
                stack.enter_context(end)
                end.setblocking(False)
        yield made


def descriptors(pairs: list[Pair]) -> array[int]:
    return array("i", [ours.fileno() for ours, _ in pairs])


def fill(connection: socket.socket) -> None:
    with suppress(BlockingIOError):
        while connection.send(DATA):
            pass


@pytest.mark.usefixtures("way")
def test_each_that_takes_nothing_or_has_gone_is_told_from_those_that_took_all(
    pairs: list[Pair],
) -> None:
    fill(pairs[1][0])
    fill(pairs[299][0])
    pairs[3][1].close()
    for _ in range(3):
        numbers = descriptors(pairs)
        others = [pair for number, pair in enumerate(pairs) if number not in {1, 3, 299}]
        expected = {numbers[1]: 0, numbers[3]: GONE, numbers[299]: 0}
        assert write_to_each(numbers, DATA) == expected
        assert all(theirs.recv(2 * len(DATA)) == DATA for _, theirs in others)


@pytest.mark.usefixtures("way")
def test_what_does_not_fit_is_taken_in_part(pairs: list[Pair]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    with ours, theirs:
        ours.setblocking(False)
        data = os.urandom(LARGEST)
        total, taken = 0, len(data)
        while taken == len(data):
            taken = write_to_each(array("i", [ours.fileno()]), data).get(ours.fileno(), taken)
            total += taken
        assert 0 <= taken < len(data)
        ours.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: theirs.recv(1 << 20), b""))
        assert received == (data * (total // len(data) + 1))[:total]


@pytest.mark.usefixtures("way")
def test_changing_receivers_get_changing_data(pairs: list[Pair]) -> None:
    chance = random.Random(7)
    for _ in range(300):
        receivers = chance.sample(pairs, chance.randrange(len(pairs)))
        data = chance.randbytes(chance.choice([1, 118, 4000]))
        assert write_to_each(descriptors(receivers), data) == {}
        assert all(theirs.recv(LARGEST) == data for _, theirs in receivers)


@pytest.mark.usefixtures("way")
def test_a_piece_larger_than_a_batch_can_send_is_written(pairs: list[Pair]) -> None:
    data = os.urandom(LARGEST + 1)
    assert write_to_each(descriptors(pairs[:2]), data) == {}
    assert pairs[1][1].recv(2 * LARGEST) == data


@pytest.mark.usefixtures("way")
def test_an_invalid_descriptor_does_not_keep_the_others_from_theirs(pairs: list[Pair]) -> None:
    for place in (0, 100, 300):
        numbers = descriptors(pairs)
        numbers[place:place] = array("i", [-1, 99_999])
        assert write_to_each(numbers, DATA) == {-1: GONE, 99_999: GONE}
        assert all(theirs.recv(2 * len(DATA)) == DATA for _, theirs in pairs)


def calls_pass(
    monkeypatch: pytest.MonkeyPatch, queue: KernelQueue, through: Callable[[int, list[int]], None]
) -> None:
    """Have ``through(number, arguments)`` see the queue's system calls, and change them."""
    call = queue._call

    def passing(number: int, *arguments: int) -> int:
        changed = list(arguments)
        through(number, changed)
        return call(number, *changed)

    monkeypatch.setattr(queue, "_call", passing)


def test_what_the_kernel_has_no_memory_for_is_written(
    queue: KernelQueue, pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel refuses in the middle of a second batch; the next batches it takes again."""
    submits = {IO_URING[1], AIO.submit}
    calls = 0

    def refusing(number: int, arguments: list[int]) -> None:
        nonlocal calls
        if number in submits:
            calls += 1
            if calls == 2:
                arguments[1] = 10
            if calls == 3:
                raise OSError(errno.EAGAIN, "no memory")

    calls_pass(monkeypatch, queue, refusing)
    for _ in range(3):
        assert write_to_each(descriptors(pairs), DATA) == {}
        assert all(theirs.recv(2 * len(DATA)) == DATA for _, theirs in pairs)
    assert calls > 3


def test_results_that_come_in_parts_are_waited_for(
    pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a signal comes in between, or the sends are not done within the call."""
    fill(pairs[40][0])
    pairs[240][1].close()

    def in_parts(number: int, arguments: list[int]) -> None:
        if number == AIO.getevents:
            arguments[1:3] = [min(arguments[1], 100)] * 2

    with sending("aio", monkeypatch) as queue:
        assert queue is not None
        calls_pass(monkeypatch, queue, in_parts)
        numbers = descriptors(pairs)
        assert write_to_each(numbers, DATA) == {numbers[40]: 0, numbers[240]: GONE}
        assert write_to_each(numbers[:39], DATA) == {}


def test_aio_that_writes_to_files_alone_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in gVisor, whose sockets refuse it."""
    contexts = Path("/proc/self/maps").read_text().count("[aio]")
    refused = lambda self, numbers, data: (1, {numbers[0]: -errno.EINVAL})  # noqa: E731
    monkeypatch.setattr(Aio, "send_to_each", refused)
    with pytest.raises(OSError, match="does not write to sockets"):
        Aio()
    assert Path("/proc/self/maps").read_text().count("[aio]") == contexts


def in_child(check: Callable[[], bool]) -> bool:
    """Tell whether that is true in a forked child."""
    child = os.fork()
    if child == 0:
        fine = False
        try:
            fine = check()
        finally:
            os._exit(0 if fine else 1)
    _, status = os.waitpid(child, 0)
    return status == 0


def test_a_forked_child_makes_its_own(queue: KernelQueue, pairs: list[Pair]) -> None:
    assert write_to_each(descriptors(pairs), DATA) == {}

    def own() -> bool:
        theirs = batch_send._queue()
        return (
            type(theirs) is type(queue)
            and theirs is not queue
            and write_to_each(descriptors(pairs), b"child") == {}
        )

    assert in_child(own)
    assert write_to_each(descriptors(pairs), DATA) == {}
    assert all(theirs.recv(4000) == DATA + b"child" + DATA for _, theirs in pairs)


def test_a_context_of_the_parent_sends_nothing_in_a_child(
    pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    with sending("aio", monkeypatch) as queue:
        assert queue is not None
        assert in_child(lambda: queue.send_to_each(descriptors(pairs), DATA) == (0, {}))


@pytest.mark.parametrize("also_aio", [False, True], ids=["io_uring", "io_uring and aio"])
def test_where_a_container_forbids_a_queue_the_next_way_is_used_and_that_is_logged(
    pairs: list[Pair], caplog: pytest.LogCaptureFixture, also_aio: bool
) -> None:
    """Docker's default seccomp profile forbids io_uring alone."""
    need_queue("aio").close()

    def falls_back() -> bool:
        forbid(*IO_URING, *(AIO if also_aio else ()))
        batch_send._queue.cache_clear()
        caplog.clear()
        with caplog.at_level("INFO", "ssekit"):
            fine = all(write_to_each(descriptors(pairs), DATA) == {} for _ in range(2))
        expected = "events are sent with {}: no io_uring here ([Errno 1] Operation not permitted)"
        if also_aio:
            expected += ", no aio here ([Errno 1] Operation not permitted)"
        expected = expected.format("writes" if also_aio else "aio")
        return fine and [record.getMessage() for record in caplog.records] == [expected]

    assert in_child(falls_back)
    assert all(theirs.recv(3000) == DATA + DATA for _, theirs in pairs)
