"""The newest entries of a log: what is read from them, in which pieces."""

from __future__ import annotations

from ssekit import Event
from ssekit.brokers.codec import entry_of
from ssekit.hub.recent import LOOK, PIECE, Ring

NEWS, SPORT = frozenset({"news"}), frozenset({"sport"})


def ring_of(size: int, data: str = "x") -> Ring:
    """A ring whose odd entries are news and whose even ones are sport."""
    ring = Ring(10_000)
    ring.reset("7-0")
    channels = ("sport", "news")
    ring.extend([entry_of(channels[n % 2], Event(data), f"7-{n}") for n in range(1, size + 1)])
    return ring


def test_a_piece_has_the_frames_of_its_channels_and_stands_behind_all_that_was_seen() -> None:
    piece = ring_of(5).piece(NEWS, 1)
    assert (piece.events, piece.epoch, piece.position) == (2, 7, 5)
    assert piece.block == b"data: x\nid: 7-3\n\ndata: x\nid: 7-5\n\n"


def test_those_who_stand_together_get_the_very_same_bytes_and_others_their_own() -> None:
    ring = ring_of(5)
    first = ring.piece(NEWS, 1)
    assert ring.piece(frozenset({"news"}), 1) is first
    assert ring.piece(SPORT, 1).block == b"data: x\nid: 7-2\n\ndata: x\nid: 7-4\n\n"
    assert ring.piece(NEWS, 3).events == 1
    ring.extend([entry_of("news", Event("new"), "7-6")])
    assert ring.piece(NEWS, 1).block == first.block + b"data: new\nid: 7-6\n\n"


def test_a_ring_that_begins_anew_gives_nothing_of_the_old_one() -> None:
    ring = ring_of(3)
    assert ring.piece(NEWS, 2).events == 1
    ring.reset("8-2")
    ring.extend([entry_of("news", Event("new"), "8-3")])
    assert ring.piece(NEWS, 2).block == b"data: new\nid: 8-3\n\n"


def test_pieces_end_after_some_bytes_or_some_entries_and_miss_nothing() -> None:
    for ring, limit in ((ring_of(300, "y" * 1000), PIECE + 1100), (ring_of(3 * LOOK), PIECE)):
        position, events, pieces = 0, 0, 0
        while position < ring.end:
            piece = ring.piece(NEWS, position)
            assert position < piece.position <= position + LOOK
            assert len(piece.block) <= limit
            position, events, pieces = piece.position, events + piece.events, pieces + 1
        assert events == ring.end / 2
        assert pieces > 2
