"""The same bytes to many sockets: each takes all, some or none, and what it took is told."""

from __future__ import annotations

import errno
import os
import random
import socket
from array import array
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from ssekit.host import batch_send
from ssekit.host.batch_send import GONE, write_to_each
from ssekit.host.io_uring import LARGEST, Uring
from tests.components import need_io_uring

Pair = tuple[socket.socket, socket.socket]
DATA = b"x" * 1000


@pytest.fixture
def uring() -> Uring:
    return need_io_uring()


@pytest.fixture(params=["in batches", "a write for each"])
def write(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way in turn, for any number of sockets."""
    if request.param == "in batches":
        request.getfixturevalue("uring")
        monkeypatch.setattr(batch_send, "BATCH", 1)
    else:
        monkeypatch.setattr(batch_send, "_uring", lambda: None)


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


@pytest.mark.usefixtures("write")
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


@pytest.mark.usefixtures("write")
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


@pytest.mark.usefixtures("write")
def test_changing_receivers_get_changing_data(pairs: list[Pair]) -> None:
    chance = random.Random(7)
    for _ in range(300):
        receivers = chance.sample(pairs, chance.randrange(len(pairs)))
        data = chance.randbytes(chance.choice([1, 118, 4000]))
        assert write_to_each(descriptors(receivers), data) == {}
        assert all(theirs.recv(LARGEST) == data for _, theirs in receivers)


@pytest.mark.usefixtures("write")
def test_a_piece_larger_than_a_batch_can_send_is_written(pairs: list[Pair]) -> None:
    data = os.urandom(LARGEST + 1)
    assert write_to_each(descriptors(pairs[:2]), data) == {}
    assert pairs[1][1].recv(2 * LARGEST) == data


def test_an_invalid_descriptor_does_not_keep_the_others_from_theirs(
    uring: Uring, pairs: list[Pair]
) -> None:
    numbers = descriptors(pairs)
    numbers[100:100] = array("i", [-1, 99_999])
    expected = {-1: -errno.EBADF, 99_999: -errno.EBADF}
    assert uring.send_to_each(numbers, DATA) == (len(numbers), expected)
    assert all(theirs.recv(2 * len(DATA)) == DATA for _, theirs in pairs)


def test_what_the_kernel_has_no_memory_for_is_written(
    uring: Uring, pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel refuses in the middle of a second batch; the next batches it takes again."""
    monkeypatch.setattr(batch_send, "_uring", lambda: uring)
    enter, calls = uring._enter, 0

    def refusing(submit: int, wait: int = 0) -> int:
        nonlocal calls
        calls += 1
        if calls == 2:
            return enter(10, wait)
        if calls == 3:
            raise OSError(errno.EAGAIN, "no memory")
        return enter(submit, wait)

    monkeypatch.setattr(uring, "_enter", refusing)
    for _ in range(3):
        assert write_to_each(descriptors(pairs), DATA) == {}
        assert all(theirs.recv(2 * len(DATA)) == DATA for _, theirs in pairs)
    assert calls == 7


@pytest.mark.usefixtures("uring")
def test_a_forked_child_makes_its_own(pairs: list[Pair]) -> None:
    assert write_to_each(descriptors(pairs), DATA) == {}
    ours = batch_send._uring()
    child = os.fork()
    if child == 0:
        fine = batch_send._uring() is not ours
        fine = fine and write_to_each(descriptors(pairs), b"child") == {}
        os._exit(0 if fine else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0
    assert write_to_each(descriptors(pairs), DATA) == {}
    assert all(theirs.recv(4000) == DATA + b"child" + DATA for _, theirs in pairs)


def test_where_there_is_no_io_uring_each_is_written_to_and_that_is_logged(
    pairs: list[Pair], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def forbidden() -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(batch_send, "Uring", forbidden)
    batch_send._uring.cache_clear()
    with caplog.at_level("INFO", "ssekit"):
        for _ in range(2):
            assert write_to_each(descriptors(pairs), DATA) == {}
    batch_send._uring.cache_clear()
    assert [record.getMessage() for record in caplog.records] == [
        "each event is one system call for each viewer: "
        "no io_uring here ([Errno 1] Operation not permitted)"
    ]
