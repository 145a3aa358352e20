"""The places in which clients are authorized, and those who wait for one."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ssekit import host
from ssekit.hub.gate import Places
from tests.waiting import until_asleep


def test_places_go_to_those_who_wait_in_their_order() -> None:
    places = Places(1)
    assert places.take(0)
    order: list[int] = []

    def wait(number: int) -> None:
        assert places.take(10)
        order.append(number)
        places.put_back()

    with ThreadPoolExecutor(3) as pool:
        waiting = []
        for number in range(3):
            waiting.append(pool.submit(wait, number))
            until_asleep(pool)
        places.put_back()
        for one in waiting:
            one.result(10)
    assert order == [0, 1, 2]
    assert places.take(0)
    assert not places.take(0)


def test_one_that_has_waited_in_vain_leaves_its_place_to_the_next() -> None:
    places = Places(1)
    assert places.take(0)
    assert not places.take(0.001)
    places.put_back()
    assert places.take(0)


@pytest.mark.parametrize("given", [False, True])
def test_one_that_is_ended_while_it_waits_takes_no_place(
    given: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = Places(1)
    assert places.take(0)

    def end(turn: threading.Event, seconds: float) -> bool:
        if given:
            places.put_back()
        raise host.Ended(host.ENDING)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Event, "wait", end)
        with pytest.raises(host.Ended):
            places.take(10)
    if not given:
        places.put_back()
    assert places.take(0)
    assert not places.take(0)
