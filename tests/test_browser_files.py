"""`ssekit.browser.files`: the module as a browser, a cache and a framework ask for it."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from contextlib import closing
from email.message import Message
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import pytest
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client
from werkzeug.wrappers import Response

from ssekit.browser import files
from ssekit.testing import connect
from tests.servers import ROOT, Server, gunicorn

CONTENT = (ROOT / "ssekit" / "browser" / "ssekit.js").read_bytes()
DOCS = (ROOT / "docs" / "browser.md").read_text()
PREFIX = "/below/a/prefix"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("hub")
    with gunicorn("tests.apps.tabs:app", env={"HUB": f"sqlite:///{folder}/hub.db"}) as running:
        yield running


def ask(
    server: Server, path: str, method: str = "GET", **headers: str
) -> tuple[int, Message, bytes]:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, PREFIX + path, headers=named)
    answer = connection.getresponse()
    found = answer.status, answer.headers, answer.read()
    connection.close()
    return found


def test_the_module_is_served_below_a_prefix(server: Server) -> None:
    status, headers, body = ask(server, "/ssekit.js")
    assert (status, body) == (200, CONTENT)
    assert headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert headers["Content-Length"] == str(len(CONTENT))
    assert headers["Cache-Control"] == "no-cache"
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_its_address_with_the_hash_is_immutable(server: Server) -> None:
    assert hashlib.sha256(CONTENT).hexdigest()[:16] in files.address
    status, headers, body = ask(server, f"/{files.address}")
    assert (status, body) == (200, CONTENT)
    assert headers["Cache-Control"] == "public, max-age=31536000, immutable"
    # A file of yesterday is not served under today's content.
    assert ask(server, "/ssekit.0000000000000000.js")[0] == 404


def test_its_integrity_is_that_of_its_content() -> None:
    digest = base64.b64encode(hashlib.sha384(CONTENT).digest()).decode()
    assert files.integrity == f"sha384-{digest}"


def test_a_client_that_has_the_content_gets_304(server: Server) -> None:
    for path in ("/ssekit.js", f"/{files.address}"):
        tag = ask(server, path)[1]["ETag"]
        for condition in (tag, f"W/{tag}", f'"other", {tag}', "*"):
            status, headers, body = ask(server, path, If_None_Match=condition)
            assert (status, body, headers["ETag"]) == (304, b"", tag)
            assert headers["Cache-Control"]
        for condition in ('"other"', tag.strip('"')):
            assert ask(server, path, If_None_Match=condition)[0] == 200


def test_head_is_get_without_the_content(server: Server) -> None:
    _, wanted, _ = ask(server, "/ssekit.js")
    status, headers, body = ask(server, "/ssekit.js", "HEAD")
    assert (status, body) == (200, b"")
    for name in ("Content-Type", "Content-Length", "ETag", "Cache-Control"):
        assert headers[name] == wanted[name]


@pytest.mark.parametrize("path", ["", "/", "/ssekit.d.ts", "/__init__.py", "/../ssekit.js", "/x"])
def test_nothing_else_is_served(server: Server, path: str) -> None:
    status, headers, body = ask(server, path)
    assert status == 404
    assert headers["Content-Type"].startswith("text/plain")
    assert b"/ssekit.js" in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_get_405_with_those_allowed(server: Server, method: str) -> None:
    status, headers, _ = ask(server, "/ssekit.js", method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


def test_any_site_may_load_it_and_it_sets_nothing(server: Server) -> None:
    _, headers, _ = ask(server, "/ssekit.js", Origin="https://site.example")
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    for name in ("Access-Control-Allow-Credentials", "Set-Cookie", "Vary"):
        assert name not in headers


@pytest.mark.parametrize(("number", "path"), [(0, "/browser/ssekit.js"), (1, "/ssekit.js")])
def test_the_examples_of_the_docs_serve_it(
    number: int, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "an_example"}
    exec(re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)[number], names)
    assert Client(names["app"]).get(path, buffered=True).data == CONTENT
    if "hub" in names:
        with closing(names["hub"]), connect(names["app"]) as stream:
            assert next(stream).event == "stream-open"


def test_it_keeps_to_the_wsgi_standard() -> None:
    client = Client(DispatcherMiddleware(Response(status=404), {"/js": validator(files)}))
    assert client.get("/js/ssekit.js", buffered=True).data == CONTENT
    headers = {"If-None-Match": "*"}
    assert client.get("/js/ssekit.js", headers=headers, buffered=True).status_code == 304
    assert client.get("/js/x", buffered=True).status_code == 404
