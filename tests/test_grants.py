"""A grant: what a client may name, what it may not, and what a grant itself may hold."""

from __future__ import annotations

import pytest

from ssekit.hub.grant import MOST_CHANNELS, Grant, NotGranted, Unnamed


def test_a_client_that_names_nothing_gets_all_exact_channels() -> None:
    assert Grant(["a", "b", "user.7.*"]).narrowed() == {"a", "b"}


def test_a_client_may_narrow_its_grant() -> None:
    assert Grant(["a", "b"]).narrowed(["b"]) == {"b"}


def test_a_prefix_admits_the_channels_that_begin_with_it() -> None:
    assert Grant(["user.7.*"]).narrowed(["user.7.mail", "user.7."]) == {"user.7.mail", "user.7."}


@pytest.mark.parametrize(
    "named", ["b", "A", "a.", "", "a ", "user.8.mail", "user.7", "xuser.7.a", "*", "\u0430"]
)
def test_a_client_cannot_widen_its_grant(named: str) -> None:
    with pytest.raises((NotGranted, Unnamed)):
        Grant(["a", "user.7.*"]).narrowed(["a", named])


@pytest.mark.parametrize("named", ["a*", "user.7.*", "a\0", "a\n", "user.7.\0", "user.7.\ud800"])
def test_what_a_client_names_is_neither_a_pattern_nor_a_control_character(named: str) -> None:
    with pytest.raises(Unnamed):
        Grant(["a", "user.7.*", "*"]).narrowed([named])


def test_a_client_with_prefixes_alone_has_to_name_its_channels() -> None:
    with pytest.raises(Unnamed, match="channel=NAME"):
        Grant(["user.7.*"]).narrowed()


def test_a_client_cannot_name_ten_thousand_channels() -> None:
    grant = Grant(["*"])
    assert len(grant.narrowed(map(str, range(MOST_CHANNELS)))) == MOST_CHANNELS
    with pytest.raises(Unnamed):
        grant.narrowed(map(str, range(10_000)))


def test_a_star_alone_admits_every_channel() -> None:
    assert Grant(["*"]).narrowed(["anything"]) == {"anything"}


@pytest.mark.parametrize("channel", ["", "a\n", "\0internal", "a*b", "**", 7, None])
def test_a_grant_refuses_a_channel_that_cannot_be_one(channel: object) -> None:
    with pytest.raises(ValueError, match=r"channel|\*"):
        Grant([channel])  # type: ignore[list-item]


@pytest.mark.parametrize("name", ["", "ann\r\nadmin", "ann\x1b[2J", "\ud800"])
def test_a_subject_or_session_has_no_control_characters(name: str) -> None:
    with pytest.raises(ValueError, match="control characters"):
        Grant(["a"], subject=name)
    with pytest.raises(ValueError, match="control characters"):
        Grant(["a"], session=name)


def test_a_bare_str_is_no_list_of_channels() -> None:
    with pytest.raises(TypeError, match="not the str 'news'"):
        Grant("news")


def test_grants_are_compared_by_value() -> None:
    assert Grant(["a"], subject="ann") == Grant(("a",), subject="ann")
