"""Tickets: what they carry, how long, and every way in which one must be refused."""

from __future__ import annotations

import time
from secrets import token_urlsafe
from typing import Any

import pytest
from werkzeug import Request
from werkzeug.exceptions import Forbidden
from werkzeug.test import EnvironBuilder

from ssekit.access import Grant, Tickets

SECRET = "a secret of more than sixteen bytes"
OTHER = "another secret of more than 16 bytes"


def request_with(ticket: str | None) -> Request:
    query = {} if ticket is None else {"ticket": ticket}
    return Request(EnvironBuilder(query_string=query).get_environ())


def test_a_ticket_becomes_the_grant_that_was_issued_and_expires_with_it() -> None:
    tickets = Tickets(SECRET, lifetime=60)
    before = time.time()
    ticket = tickets.issue(
        "a", "user.7.*", subject="7", session="s1", member=("7", {"name": "Ann"})
    )
    grant = tickets(request_with(ticket))
    assert grant is not None
    assert grant.issued is not None
    assert before - 0.01 <= grant.issued <= time.time()
    assert grant == Grant(
        ["a", "user.7.*"],
        subject="7",
        session="s1",
        member=("7", {"name": "Ann"}),
        issued=grant.issued,
        expires=grant.issued + 60,
    )


def test_a_request_without_a_ticket_has_no_grant() -> None:
    assert Tickets(SECRET)(request_with(None)) is None


def test_a_ticket_that_has_expired_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    tickets = Tickets(SECRET, lifetime=60)
    ticket = tickets.issue("a")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 59)
    assert tickets(request_with(ticket)) is not None
    for off in (60.5, -1.5):  # The second is of a machine whose clock is ahead.
        monkeypatch.setattr(time, "time", lambda off=off: now + off)
        with pytest.raises(Forbidden, match="expired; ask for another"):
            tickets(request_with(ticket))


def test_a_ticket_with_a_changed_byte_at_any_place_is_refused() -> None:
    tickets = Tickets(SECRET)
    ticket = tickets.issue("a", subject="ann")
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."
    for place, letter in enumerate(ticket):
        last = place == len(ticket) - 1  # Base64 does not use all of its bits.
        for other in letters if last else "AB":
            changed = ticket[:place] + other + ticket[place + 1 :]
            if other != letter:
                with pytest.raises(Forbidden, match="not a valid ticket"):
                    tickets(request_with(changed))


@pytest.mark.parametrize("ticket", ["", ".", "a.b.c", "x" * 100_000, "\x00", "é.é.é", "null"])
def test_what_is_no_ticket_is_refused(ticket: str) -> None:
    with pytest.raises(Forbidden, match="not a valid ticket"):
        Tickets(SECRET)(request_with(ticket))


@pytest.mark.parametrize(
    "issuer",
    [Tickets(OTHER), Tickets(SECRET, audience="admin"), Tickets(SECRET, audience=" ")],
    ids=["another key", "another audience", "an audience that looks empty"],
)
def test_a_ticket_of_somebody_else_is_refused(issuer: Tickets) -> None:
    with pytest.raises(Forbidden, match="not a valid ticket"):
        Tickets(SECRET)(request_with(issuer.issue("a")))


def test_what_else_the_application_signs_is_no_ticket() -> None:
    from itsdangerous import URLSafeTimedSerializer

    other = URLSafeTimedSerializer(SECRET)
    says: Any = {"channels": ["a"], "issued": time.time()}
    with pytest.raises(Forbidden):
        Tickets(SECRET)(request_with(str(other.dumps(says))))


def test_keys_rotate() -> None:
    old, both, new = Tickets(OTHER), Tickets([OTHER, SECRET]), Tickets(SECRET)
    assert both(request_with(old.issue("a"))) is not None
    assert new(request_with(both.issue("a"))) is not None
    with pytest.raises(Forbidden):
        old(request_with(both.issue("a")))


@pytest.mark.parametrize("secret", ["", "short", [], ["long enough, more than 16", "short"]])
def test_a_short_secret_is_refused(secret: Any) -> None:
    with pytest.raises(ValueError, match=r"secret"):
        Tickets(secret)


@pytest.mark.parametrize(
    "channels", [(), ("a\n",), ("",), tuple(token_urlsafe(40) for _ in range(99))]
)
def test_a_ticket_is_not_issued_for_what_no_grant_can_hold(channels: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"channel|characters"):
        Tickets(SECRET).issue(*channels)


def test_a_lifetime_is_above_nothing() -> None:
    with pytest.raises(ValueError, match="lifetime"):
        Tickets(SECRET, lifetime=0)
