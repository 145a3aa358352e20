"""The newest entries of a log: what is read from them, in which pieces."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ssekit import Event
from ssekit.brokers.contract import Entry, Retention
from ssekit.hub.entries import body_of
from ssekit.hub.pieces import KEYED_PIECE, PIECE, Piece, View
from ssekit.hub.recent import RecentEntries

NEWS, SPORT = View(frozenset({"news"})), View(frozenset({"sport"}))


def entry(
    seq: int, data: str = "x", channel: str = "news", *, name: str | None = None, epoch: int = 7,
    key: str | None = None, passing: bool = False,
) -> Entry:  # fmt: skip
    return Entry(f"{epoch}-{seq}", channel, body_of(Event(data, name)), key, passing)


def recent_of(*entries: Entry, size: int = 10_000) -> RecentEntries:
    recent = RecentEntries(size)
    recent.reset([], "7-0")
    recent.extend(entries)
    return recent


def alternating(size: int, data: str = "x") -> RecentEntries:
    """Entries of which the odd ones are news and the even ones are sport."""
    return recent_of(*(entry(n, data, ("sport", "news")[n % 2]) for n in range(1, size + 1)))


def pieces(recent: RecentEntries, view: View = NEWS, position: int = 0) -> Iterator[list[str]]:
    while position < recent.end:
        piece = recent.piece(view, position)
        assert piece.position > position
        position = piece.position
        yield [each.body.decode().removeprefix("data: ").strip() for each in piece.entries]


def pieces_from(recent: RecentEntries, position: int) -> Iterator[Piece]:
    while position < recent.end:
        piece = recent.piece(NEWS, position)
        position = piece.position
        yield piece


def test_a_piece_has_the_frames_of_its_channels_and_the_position_after_all_that_was_seen() -> None:
    piece = alternating(5).piece(NEWS, 1)
    assert (len(piece.entries), piece.epoch, piece.position) == (2, 7, 5)
    assert piece.block == b"data: x\nid: 7-3\n\ndata: x\nid: 7-5\n\n"


def test_readers_at_the_same_position_get_the_very_same_bytes_and_others_their_own() -> None:
    recent = alternating(5)
    first = recent.piece(NEWS, 1)
    assert recent.piece(View(frozenset({"news"})), 1) is first
    assert first.framed(True) is first.framed(True)
    assert first.framed(True) == b"22\r\n" + first.block + b"\r\n"
    assert recent.piece(SPORT, 1).block == b"data: x\nid: 7-2\n\ndata: x\nid: 7-4\n\n"
    assert len(recent.piece(NEWS, 3).entries) == 1
    assert recent.piece(NEWS, 1) is first
    recent.extend([entry(6, "new")])
    assert recent.piece(NEWS, 1).block == first.block + b"data: new\nid: 7-6\n\n"


def test_readers_at_different_positions_share_all_pieces_but_their_first() -> None:
    recent = recent_of(*(entry(n, "x" * 10_000) for n in range(1, 41)))
    ends = [(piece.position, piece) for piece in pieces_from(recent, 0)]
    for start in range(1, 30):
        mine = [(piece.position, piece) for piece in pieces_from(recent, start)]
        assert mine[1:] == ends[-len(mine) :][1:]


def test_a_piece_that_newer_entries_do_not_change_is_shared_with_those_who_come_later() -> None:
    recent = recent_of(*(entry(n, "x" * 10_000) for n in range(1, 21)))
    first, *_, last = pieces_from(recent, 0)
    recent.extend([entry(21)])
    assert recent.piece(NEWS, 0) is first
    assert recent.piece(NEWS, 14).position == 21
    assert last.position == 20


def test_a_value_that_was_replaced_is_not_given_to_those_who_come_later() -> None:
    recent = recent_of(*(entry(n, "x" * 3_000, key=f"k{n}") for n in range(1, 5)))
    assert recent.piece(NEWS, 0).position == 2
    recent.extend([entry(5, "new", key="k1")])
    assert [each.key for each in recent.piece(NEWS, 0).entries] == ["k2", "k3"]


def test_few_bytes_of_shared_pieces_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssekit.hub.pieces.MOST_SHARED", 200_000)
    recent = recent_of(*(entry(n, "x" * 10_000) for n in range(1, 101)))
    first, *_, before_last, _ = pieces_from(recent, 0)
    assert recent.piece(NEWS, 0) is not first
    assert recent.piece(NEWS, before_last.position - 7) is before_last


def test_entries_that_begin_anew_give_nothing_of_the_earlier_ones() -> None:
    recent = alternating(3)
    assert len(recent.piece(NEWS, 2).entries) == 1
    recent.reset([], "8-2")
    recent.extend([entry(3, "new", epoch=8)])
    assert recent.piece(NEWS, 2).block == b"data: new\nid: 8-3\n\n"


def test_a_process_begins_with_the_newest_entries_of_the_log() -> None:
    recent = RecentEntries(100)
    recent.reset([entry(5), entry(6), entry(7, epoch=8)], "8-7")
    assert (recent.start, recent.end, recent.tip) == (4, 7, "8-7")
    assert recent.holds(7, 4)
    assert recent.holds(7, 5)
    assert recent.holds(8, 7)
    assert not recent.holds(8, 5)
    assert not recent.holds(7, 3)
    assert len(recent.piece(NEWS, 4).entries) == 3


def test_an_epoch_that_began_after_the_newest_entry_is_known() -> None:
    recent = RecentEntries(100)
    recent.reset([entry(5), entry(6)], "9-6")
    assert recent.tip == "9-6"
    assert recent.holds(7, 5)
    recent.extend([entry(7, epoch=9)])
    assert recent.tip == "9-7"


@pytest.mark.parametrize(("size", "data"), [(300, "y" * 1000), (20_000, "x")])
def test_pieces_end_after_some_bytes_and_miss_nothing(size: int, data: str) -> None:
    recent = recent_of(
        *(entry(n, data, ("sport", "news")[n % 2]) for n in range(1, size + 1)), size=100_000
    )
    found = list(pieces(recent))
    assert sum(map(len, found)) == size / 2
    assert len(found) > 1
    assert all(len("".join(piece)) <= PIECE + 1000 for piece in found)


def test_only_so_many_entries_and_bytes_are_kept() -> None:
    recent = RecentEntries(10, most_bytes=10_000)
    recent.reset([], "7-0")
    for seq in range(1, 101):
        recent.extend([entry(seq)])
    assert (recent.start, recent.end) == (90, 100)
    for seq in range(101, 106):
        recent.extend([entry(seq, "y" * 4000)])
    assert (recent.start, recent.end) == (103, 105)
    assert not recent.holds(7, 102)
    recent.extend([entry(106, "z" * 20_000)])
    assert (recent.start, recent.end) == (106, 106)
    recent.extend([entry(107)])
    assert list(pieces(recent, position=106)) == [["x"]]


def test_a_lagging_reader_skips_the_values_that_were_replaced() -> None:
    values = [entry(n, f"{n}", key="ab"[n % 2]) for n in range(1, 8)]
    recent = recent_of(*values, entry(8, "8"))
    assert list(pieces(recent)) == [["6", "7", "8"]]
    assert list(pieces(recent, position=6)) == [["7", "8"]]
    live = recent.piece(NEWS, 0, live=3)
    assert [each.id for each in live.entries] == ["7-1", "7-2", "7-3", "7-6", "7-7", "7-8"]


def test_a_key_of_one_channel_does_not_replace_that_of_another() -> None:
    recent = recent_of(entry(1, "1", key="a"), entry(2, "2", "sport", key="a"))
    assert list(pieces(recent)) == [["1"]]


def test_a_removal_replaces_the_value_and_is_always_given() -> None:
    removal = entry(2, "{}", name="stream-remove", key="a")
    recent = recent_of(entry(1, "1", key="a"), removal, entry(3, "3", key="a"))
    assert [each.id for each in recent.piece(NEWS, 0).entries] == ["7-2", "7-3"]


def test_pieces_with_values_of_keys_are_small() -> None:
    recent = recent_of(*(entry(n, "y" * 1000, key=f"{n}") for n in range(1, 51)))
    assert all(len("".join(piece)) <= KEYED_PIECE + 1000 for piece in pieces(recent))


def test_a_lagging_reader_gets_no_passing_event() -> None:
    recent = recent_of(entry(1, "1"), entry(2, "2", passing=True), entry(3, "3", passing=True))
    assert list(pieces(recent)) == [["1"]]
    assert recent.piece(NEWS, 0, live=2).block == b"data: 1\nid: 7-1\n\ndata: 2\n\n"
    assert len(recent.piece(NEWS, 0, passing=3).entries) == 3


def test_a_piece_ends_with_the_end_of_a_channel() -> None:
    end = entry(2, "{}", name="stream-end")
    recent = recent_of(entry(1, "1"), end, entry(3, "3"))
    first = recent.piece(NEWS, 0)
    assert first.entries[-1] is end
    assert first.position == 2
    assert recent.piece(NEWS, 2).position == 3


def test_a_reader_without_hub_events_gets_their_ids_alone() -> None:
    recent = recent_of(entry(1, "{}", name="stream-remove", key="a"), entry(2, "2"))
    view = View(NEWS.channels, hub_events=False)
    assert recent.piece(view, 0).block == b"id: 7-1\n\ndata: 2\nid: 7-2\n\n"
    assert recent.piece(view._replace(own_ids=False), 0).block == b"data: 2\nid: 7-2\n\n"


def test_keys_that_are_no_longer_here_are_forgotten() -> None:
    recent = RecentEntries(10)
    recent.reset([], "7-0")
    for seq in range(1, 1001):
        recent.extend([entry(seq, key=f"{seq}")])
    assert len(recent._newest) <= 21


def test_which_channels_have_newer_entries_is_asked_anew_after_each_new_entry() -> None:
    both = View(frozenset({"news", "sport"}))
    recent = recent_of(entry(1), entry(2))
    for _ in range(2):
        assert recent.resume(both, 7, 1, Retention()) == {"news"}
    recent.extend([entry(3, channel="sport")])
    assert recent.resume(both, 7, 1, Retention()) == {"news", "sport"}
    recent.reset([], "8-3")
    assert recent.resume(both, 7, 1, Retention()) is None


def test_what_has_expired_meanwhile_is_no_longer_resumed_from_memory() -> None:
    recent = recent_of(entry(1), entry(2))
    assert recent.resume(NEWS, 7, 1, Retention()) == {"news"}
    assert recent.resume(NEWS, 7, 1, Retention(max_age=60)) is None
