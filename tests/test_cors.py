"""Which pages of other origins may read a stream (Fetch standard, "CORS protocol")."""

from __future__ import annotations

from typing import Any

import pytest

from ssekit import Stream
from tests.answers import request

PAGE = "https://page.example"


@pytest.mark.parametrize(
    ("origins", "origin", "expected"),
    [
        ((), PAGE, {}),
        ((PAGE,), "", {"Vary": "Origin"}),
        ((PAGE,), "https://evil.example", {"Vary": "Origin"}),
        ((PAGE,), "https://page.example.evil.example", {"Vary": "Origin"}),
        ((PAGE,), "null", {"Vary": "Origin"}),
        (
            (PAGE, "http://127.0.0.1:8000"),
            PAGE,
            {
                "Access-Control-Allow-Origin": PAGE,
                "Access-Control-Allow-Credentials": "true",
                "Vary": "Origin",
            },
        ),
        ("*", "https://anybody.example", {"Access-Control-Allow-Origin": "*"}),
    ],
)
def test_origins_get_what_they_may_have(
    origins: Any, origin: str, expected: dict[str, str]
) -> None:
    app = Stream(["x"], origins=origins)
    for method in ("GET", "HEAD", "POST"):
        _, headers, _ = request(method, app, HTTP_ORIGIN=origin)
        assert {
            name: value
            for name, value in headers.items()
            if name.startswith("Access-Control") or name == "Vary"
        } == expected


def test_a_preflight_is_answered() -> None:
    app = Stream(["x"], origins=(PAGE,))
    status, headers, body = request("OPTIONS", app, HTTP_ORIGIN=PAGE)
    assert (status, body) == (204, b"")
    assert headers["Access-Control-Allow-Methods"] == "GET"
    assert headers["Access-Control-Allow-Headers"] == (
        "Last-Event-ID, Cache-Control, Authorization, Content-Type"
    )
    status, headers, _ = request("OPTIONS", app, HTTP_ORIGIN="https://evil.example")
    assert status == 204
    assert not any(name.startswith("Access-Control") for name in headers)


@pytest.mark.parametrize(
    "origins",
    [
        PAGE,
        ("page.example",),
        (f"{PAGE}/",),
        ("null",),
        ("HTTPS://PAGE.EXAMPLE",),
        ("https://Page.example",),
        (f"{PAGE}:443",),
        ("http://page.example:80",),
        ("https://caf\u00e9.example",),
        ("*",),
    ],
)
def test_origins_that_can_never_match_are_refused(origins: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="origin"):
        Stream([], origins=origins)


@pytest.mark.parametrize(
    "origin",
    ["http://[::1]:8000", "http://127.0.0.1", "http://page.example:443", "app-extension://a_b-c"],
)
def test_every_origin_of_a_browser_is_taken(origin: str) -> None:
    _, headers, _ = request("HEAD", Stream([], origins=(origin,)), HTTP_ORIGIN=origin)
    assert headers["Access-Control-Allow-Origin"] == origin
