"""What a group of viewers counts, and who of it still lacks a delivery that takes several turns."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from ssekit.hub.pieces import View
from ssekit.hub.viewers import Kind, ViewerGroup


def viewer(descriptor: int) -> Any:
    return SimpleNamespace(descriptor=descriptor, events=0, bytes=0)


def group_of(send_heartbeat: Callable[[ViewerGroup], None]) -> ViewerGroup:
    server: Any = SimpleNamespace(send_heartbeat=send_heartbeat)
    return ViewerGroup(Kind(View(frozenset({"news"})), True, 15.0), server)


def counted(one: Any) -> tuple[int, int]:
    return one.events, one.bytes


def test_each_is_counted_what_it_was_sent_whenever_it_came_or_left() -> None:
    group = group_of(lambda group: None)
    stays, leaves_early, leaves_unsent, leaves_sent = map(viewer, (4, 5, 6, 7))
    comes_early, comes_late = viewer(5), viewer(6)  # with descriptors of those who have left
    for one in (stays, leaves_early, leaves_unsent, leaves_sent):
        group.add(one)
    group.expect()
    group.discard(leaves_early)
    group.add(comes_early)  # It has had the delivery with its opening.
    group.count(2, 100)
    assert group.lacking == {4, 6, 7}
    group.lacking.discard(7)  # It is sent to.
    group.discard(leaves_sent)
    group.discard(leaves_unsent)
    group.add(comes_late)
    assert list(group.take_lacking(10)) == [4]
    assert list(group.take_lacking(10)) == []
    group.lacking = None
    for one in (stays, comes_early, comes_late):
        group.discard(one)
    assert [counted(one) for one in (leaves_early, leaves_unsent)] == [(0, 0), (0, 0)]
    assert [counted(one) for one in (leaves_sent, stays)] == [(2, 100), (2, 100)]
    assert [counted(one) for one in (comes_early, comes_late)] == [(0, 0), (0, 0)]


def test_nobody_is_sent_a_heartbeat_in_the_middle_of_a_delivery() -> None:
    beats: list[ViewerGroup] = []
    group = group_of(beats.append)
    group.add(viewer(4))
    group.expect()
    group.beat()
    assert beats == []
    group.lacking = None
    group.beat()
    assert beats == [group]
