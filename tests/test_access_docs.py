"""The application of docs/access.md, under gunicorn, as a user runs it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, build_opener

import pytest

from tests.clients import Client
from tests.servers import ROOT, Server, gunicorn


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    text = (ROOT / "docs" / "access.md").read_text()
    (code,) = re.findall(r"```python\n# notes.py\n(.*?)```", text, re.DOTALL)
    (tmp_path / "notes.py").write_text(code)
    options = ["--chdir", str(tmp_path), "--workers", "2"]
    with gunicorn("notes:app", *options, env={"SECRET_KEY": "x" * 32}) as running:
        yield running


class Visitor:
    """A browser's cookies."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._jar = CookieJar()
        self._opener = build_opener(HTTPCookieProcessor(self._jar))

    def post(self, path: str, **form: str) -> int:
        try:
            with self._opener.open(self._server.url + path, urlencode(form).encode()) as answer:
                return int(answer.status)
        except HTTPError as error:
            return error.code

    def stream(self, query: str = "") -> Client:
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in self._jar)
        headers = {"Cookie": cookies} if cookies else {}
        return Client(f"{self._server.url}/events{query}", version="1.1", headers=headers)


def test_a_login_sees_its_own_and_a_logout_ends_its_streams_alone(server: Server) -> None:
    stranger, ann, ann_at_home = Visitor(server), Visitor(server), Visitor(server)
    with stranger.stream() as refused:
        assert refused.status == 401
    assert ann.post("/login", user="ann", password="battery") == 403
    for visitor in (ann, ann_at_home):
        assert visitor.post("/login", user="ann", password="correct horse") == 200
    with ann.stream("?channel=user.bob") as forbidden:
        assert forbidden.status == 403
    with ann.stream() as tab, ann.stream() as other_tab, ann_at_home.stream() as home:
        for client in (tab, other_tab, home):
            client.until_body(b"stream-open")
        stranger.post("/notes", to="bob", text="for bob")
        stranger.post("/notes", to="ann", text="for ann")
        for client in (tab, other_tab, home):
            assert client.wait(2)[1].data == "for ann"
        assert ann.post("/logout") == 200
        for client in (tab, other_tab):
            client.until_end(5)
        stranger.post("/notes", to="ann", text="private")
        assert home.wait(3)[2].data == "private"
        assert b"private" not in tab.body + other_tab.body
    with ann.stream() as refused:
        assert refused.status == 401
