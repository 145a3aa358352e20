"""The demo application over HTTP; its room is in test_room, the page itself in test_page."""

from __future__ import annotations

import html
import io
import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client as Visitor
from werkzeug.test import EnvironBuilder, TestResponse, run_wsgi_app

from ssekit import BrokerUnavailable, Event, HubClosed
from ssekit.demo.app import Application, create
from ssekit.demo.settings import origins_of
from ssekit.testing import connect
from tests.clients import Client
from tests.servers import ROOT, gunicorn
from tests.waiting import until

SCRIPTS = ROOT / "scripts" / "cgi-bin"
PAGE = ROOT / "ssekit" / "demo" / "page"
TOKEN = "correct horse"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def app() -> Iterator[Application]:
    made = create(token=TOKEN, scripts=SCRIPTS)
    yield made
    made.hub.close()


@pytest.fixture
def visitor(app: Application) -> Visitor:
    return Visitor(app)


def error(answer: TestResponse) -> str:
    assert answer.content_type == "application/json"
    return str(answer.json["error"])  # type: ignore[index]


# The page.


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/", "text/html; charset=utf-8"),
        *((f"/{path.name}", "text/javascript; charset=utf-8") for path in PAGE.glob("*.js")),
        ("/page.css", "text/css; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
    ],
)
def test_the_page_and_its_parts_are_served_safely(
    visitor: Visitor, path: str, content_type: str
) -> None:
    answer = visitor.get(path)
    assert answer.status_code == 200
    assert answer.content_type == content_type
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    again = visitor.get(path, headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert visitor.head(path).status_code == 200


def test_the_page_names_no_other_host() -> None:
    for path in PAGE.iterdir():
        found = re.findall(r"\w+://[\w.:-]+", path.read_text())
        assert set(found) <= {"http://www.w3.org", "http://127.0.0.1:8000"}, path


def test_the_code_that_the_page_shows_is_the_code_that_runs() -> None:
    shown = re.findall(
        r'data-from="([^"]+)"><code>(.*?)</code></pre>', (PAGE / "index.html").read_text(), re.S
    )
    assert len(shown) == 3
    for path, code in shown:
        without_docstrings = re.sub(r'^ +""".*"""\n', "", (ROOT / path).read_text(), flags=re.M)
        assert html.unescape(code).strip() in without_docstrings


def test_the_application_works_below_a_prefix(app: Application) -> None:
    def nothing(environ: Any, start_response: Any) -> list[bytes]:
        raise AssertionError(environ["PATH_INFO"])

    mounted = DispatcherMiddleware(nothing, {"/demo": app})
    visitor = Visitor(mounted)
    assert visitor.get("/demo/").status_code == 200
    without_slash = visitor.get("/demo")
    assert (without_slash.status_code, without_slash.headers["Location"]) == (308, "/demo/")
    for path in ("/demo/clock", "/demo/scripts/count.py", "/demo/events?channel=a"):
        with connect(mounted, path) as stream:
            assert next(stream).data


@pytest.mark.parametrize(
    "mount", ["//evil.example", "/\\evil.example", "/demo//evil", "evil.example", "/", "/a\tb"]
)
def test_a_mount_that_is_not_a_path_is_refused_and_redirects_nowhere(
    visitor: Visitor, mount: str
) -> None:
    # gunicorn takes SCRIPT_NAME from a header of its proxy, and a careless proxy passes on ours.
    for path in ("", "/"):
        environ = {"SCRIPT_NAME": mount, "PATH_INFO": path}
        answer = visitor.get("/", environ_overrides=environ)
        assert answer.status_code == 400
        assert "Location" not in answer.headers


def test_a_mount_from_a_header_redirects_to_no_other_site(tmp_path: Path) -> None:
    env = {"SSEKIT_URL": f"sqlite:///{tmp_path}/hub.db", "SSEKIT_ROOM": "off"}
    with gunicorn("wsgi:app", env=env) as server:
        headers = {"SCRIPT_NAME": "//evil.example"}
        with Client(f"{server.url}//evil.example", headers=headers) as client:
            assert client.status == 400
            assert "Location" not in client.headers


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "//", "\xff", "null"])
@pytest.mark.parametrize("path", ["/status", "/room", "/publish", "/clock", "/probe"])
def test_an_invalid_origin_is_not_a_server_error(visitor: Visitor, path: str, origin: str) -> None:
    method = "POST" if path in ("/room", "/publish") else "HEAD"
    answer = visitor.open(path, method=method, headers={"Origin": origin})
    assert answer.status_code == (403 if path == "/room" else 401 if path == "/publish" else 200)


@pytest.mark.parametrize("path", ["/nothing", "/page/index.html", "/../setup.cfg", "/scripts/"])
def test_an_unknown_path_is_a_404_in_json(visitor: Visitor, path: str) -> None:
    answer = visitor.get(path)
    assert answer.status_code == 404
    assert error(answer)


@pytest.mark.parametrize("path", ["/", "/publish", "/room", "/clock", "/events?channel=a"])
def test_a_wrong_method_is_a_405_that_says_which(visitor: Visitor, path: str) -> None:
    posted = path in ("/publish", "/room")
    for method in ("PUT", "GET" if posted else "POST"):
        answer = visitor.open(path, method=method)
        assert answer.status_code == 405
        assert ("POST" in answer.headers["Allow"]) == posted
        assert ("GET" in answer.headers["Allow"]) != posted


@pytest.mark.parametrize("path", ["/publish", "/room"])
def test_what_takes_posts_says_so_to_a_browser_that_opens_it(visitor: Visitor, path: str) -> None:
    answer = visitor.get(path)
    assert answer.status_code == 405
    assert "POST" in answer.headers["Allow"]


@pytest.mark.parametrize(
    "path", ["/", "/status", "/clock", "/hello", "/events?channel=a", "/probe"]
)
def test_a_query_of_many_fields_is_not_a_server_error(visitor: Visitor, path: str) -> None:
    fields = "&".join(f"field{number}=1" for number in range(150))
    answer = visitor.open(f"{path}{'&' if '?' in path else '?'}{fields}", method="HEAD")
    assert answer.status_code in (200, 400)


@pytest.mark.parametrize("last", ["9" * 5000, "-1", "x", "\xb2"])
def test_the_probe_takes_any_last_event_id(app: Application, last: str) -> None:
    with connect(app, "/probe?count=0", headers=[("Last-Event-ID", last)]) as stream:
        assert list(stream) == []


# The streams.


def test_the_clock_has_its_interval_from_the_query(app: Application) -> None:
    with connect(app, "/clock?interval=0.1") as stream:
        for event, _ in zip(stream, range(3), strict=False):
            assert event.event == "message"
            assert set(json.loads(event.data)) == {"id", "message"}


@pytest.mark.parametrize("interval", ["", "x", "0", "-1", "nan", "inf", "0.01", "61", "1e999"])
def test_an_interval_out_of_bounds_is_refused(visitor: Visitor, interval: str) -> None:
    answer = visitor.get(f"/clock?interval={interval}")
    assert answer.status_code == 400
    assert "from 0.1 to 60" in error(answer)


@pytest.mark.parametrize("accept", [None, "*/*", "text/*", "text/html", "text/event-stream;q=0"])
def test_hello_says_ok_unless_a_stream_is_asked_for(visitor: Visitor, accept: str | None) -> None:
    answer = visitor.get("/hello", headers={"Accept": accept} if accept else {})
    assert (answer.status_code, answer.data) == (200, b"ok")
    assert "Accept" in answer.headers["Vary"]
    assert visitor.post("/hello").data == b"ok"


def test_hello_streams_to_clients_that_ask_for_a_stream(app: Application, visitor: Visitor) -> None:
    for accept in ("text/event-stream", "text/event-stream, */*;q=0.1"):
        answer = visitor.head("/hello", headers={"Accept": accept})
        assert answer.content_type == "text/event-stream; charset=utf-8"
    with connect(app, "/hello", timeout=5) as stream:
        assert next(stream) == Event("hello", "message", "1")


def test_a_script_of_the_folder_streams_and_resumes(app: Application) -> None:
    with connect(app, "/scripts/count.py") as stream:
        assert next(stream) == Event("1", "message", "1")
    with connect(app, "/scripts/count.py", last_event_id="41") as stream:
        assert next(stream) == Event("42", "message", "42")


def test_without_a_folder_there_are_no_scripts() -> None:
    answer = Visitor(create()).get("/scripts/clock.py")
    assert answer.status_code == 404


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("", "Name a channel"),
        ("channel=", "channel"),
        ("channel=a%00b", "channel"),
        ("channel=a%0Ab", "channel"),
        ("channel=" + "x" * 129, "at most 128"),
        ("&".join(f"channel={number}" for number in range(17)), "limit is 16"),
    ],
)
def test_wrong_channels_are_refused(visitor: Visitor, query: str, why: str) -> None:
    answer = visitor.get(f"/events?{query}")
    assert answer.status_code == 400
    assert why in error(answer)


def test_a_channel_may_be_named_twice_and_in_any_script(app: Application) -> None:
    with connect(app, "/events?channel=%E5%AE%A4&channel=%E5%AE%A4") as stream:
        assert next(stream).event == "stream-open"
        app.hub.publish("室", "你好")
        assert next(stream).data == "你好"


def test_origins_are_read_from_the_setting() -> None:
    assert origins_of("") == ()
    assert origins_of("*") == "*"
    assert origins_of("https://a.example, https://b.example") == (
        "https://a.example",
        "https://b.example",
    )
    with pytest.raises(ValueError, match="not an origin"):
        create(origins=origins_of("a.example"))


@pytest.mark.parametrize("path", ["/clock", "/hello", "/scripts/count.py", "/events?channel=a"])
def test_every_stream_admits_the_origins_and_no_other(path: str) -> None:
    visitor = Visitor(create(origins=["https://a.example"], scripts=SCRIPTS))
    for origin, admitted in [
        ("https://a.example", "https://a.example"),
        ("https://b.example", None),
    ]:
        headers = {"Origin": origin, "Accept": "text/event-stream"}
        for method in ("HEAD", "OPTIONS"):
            answer = visitor.open(path, method=method, headers=headers)
            assert answer.headers.get("Access-Control-Allow-Origin") == admitted
            assert "Origin" in ", ".join(answer.headers.getlist("Vary"))


# Publishing.

FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=b"
PARTS = (
    b'--b\r\nContent-Disposition: form-data; name="channel"\r\n\r\nnews\r\n'
    b'--b\r\nContent-Disposition: form-data; name="data"\r\n\r\n%b\r\n--b--\r\n'
)


def test_what_is_published_arrives(app: Application, visitor: Visitor) -> None:
    with connect(app, "/events?channel=news&channel=sport") as stream:
        assert next(stream).event == "stream-open"
        bodies: list[dict[str, Any]] = [
            {"json": {"channel": "news", "data": {"a": [1, None]}, "event": "e", "retry": 5}},
            {"data": {"channel": "sport", "data": "line one\nline two", "retry": "7"}},
            {"json": {"channel": "news", "data": None}},
            {"data": {"channel": "news", "data": "", "event": "", "retry": ""}},
            {"data": PARTS % "é+%ff".encode(), "content_type": MULTIPART},
            {"data": b"channel=news&data=%C3%A9+%2B", "content_type": FORM},
        ]
        for body in bodies:
            answer = visitor.post("/publish", headers=BEARER, **body)
            assert answer.status_code == 201, answer.data
            event = next(stream)
            assert answer.json == {"id": event.id}
            body["arrived"] = (event.event, event.data)
        assert [body["arrived"] for body in bodies] == [
            ("e", '{"a":[1,null]}'),
            ("message", "line one\nline two"),
            ("message", "null"),
            ("message", ""),
            ("message", "é+%ff"),
            ("message", "é +"),
        ]


GOOD = {"channel": "a", "data": "x"}


@pytest.mark.parametrize(
    ("request_", "status", "why"),
    [
        ({"headers": {}, "json": GOOD}, 401, "needs the header"),
        ({"headers": {"Authorization": "Basic eDp4"}, "json": GOOD}, 401, "needs the header"),
        ({"headers": {"Authorization": "Bearer wrong"}, "json": GOOD}, 401, "token is wrong"),
        ({"headers": {"Authorization": "Bearer"}, "json": GOOD}, 401, "token is wrong"),
        ({"headers": {"Authorization": "Bearer \xff"}, "json": GOOD}, 401, "token is wrong"),
        ({"data": b"x" * 70_000, "content_type": "application/json"}, 413, "65536 bytes"),
        ({"data": {"channel": "a", "data": "x" * 70_000}}, 413, "65536 bytes"),
        ({"data": b"x", "content_type": "text/plain"}, 415, "form or JSON"),
        ({"data": b"x"}, 415, "form or JSON"),
        ({"data": b"{", "content_type": "application/json"}, 400, "not JSON"),
        ({"data": b'"\xff"', "content_type": "application/json"}, 400, "not JSON"),
        ({"data": b"[" * 60_000, "content_type": "application/json"}, 400, "JSON"),
        ({"json": ["a"]}, 422, "JSON object"),
        ({"json": {"data": "x"}}, 422, "channel is missing"),
        ({"json": {"channel": "a"}}, 422, "data is missing"),
        ({"json": {"channel": 5, "data": "x"}}, 422, "must be text"),
        ({"json": {"channel": "", "data": "x"}}, 422, "channel"),
        ({"json": {"channel": "a\n", "data": "x"}}, 422, "channel"),
        ({"json": {**GOOD, "id": "7"}}, 422, "Unknown field 'id'"),
        ({"json": {**GOOD, "event": "a\nb"}}, 422, "event"),
        ({"json": {**GOOD, "event": 5}}, 422, "event"),
        ({"json": {**GOOD, "event": "stream-reset"}}, 422, "stream-reset"),
        ({"json": {**GOOD, "retry": -1}}, 422, "retry"),
        ({"json": {**GOOD, "retry": "soon"}}, 422, "retry"),
        ({"json": {**GOOD, "retry": 1.5}}, 422, "retry"),
        ({"data": b'{"channel":"a","data":NaN}', "content_type": "application/json"}, 422, "JSON"),
        (
            {"data": b'{"channel":"a","data":"\\ud800"}', "content_type": "application/json"},
            422,
            "",
        ),
        ({"data": {"channel": ["a", "b"], "data": "x"}}, 422, "2 times"),
        ({"data": b"channel=a&data=%ff", "content_type": FORM}, 422, "not UTF-8"),
        ({"data": b"channel=a&data=\xff", "content_type": FORM}, 422, "not UTF-8"),
        ({"data": PARTS % b"\xff", "content_type": MULTIPART}, 422, "UTF-8"),
    ],
)
def test_what_cannot_be_published_is_refused_with_the_reason(
    app: Application, visitor: Visitor, request_: dict[str, Any], status: int, why: str
) -> None:
    answer = visitor.post("/publish", **{"headers": BEARER, **request_})
    assert answer.status_code == status
    assert why in error(answer)
    assert (status == 401) == ("WWW-Authenticate" in answer.headers)
    with connect(app, "/events?channel=a") as stream:
        app.hub.publish("a", "the first")
        assert [next(stream).event, next(stream).data] == ["stream-open", "the first"]


@pytest.mark.parametrize(
    ("kind", "head", "tail"),
    [
        ("application/json", '{"channel": "a", "data": "', '"}'),
        ("application/x-www-form-urlencoded", "channel=a&data=", ""),
    ],
)
def test_a_body_that_does_not_say_how_long_it_is_has_the_same_limit(
    app: Application, kind: str, head: str, tail: str
) -> None:
    def status(length: int) -> int:
        body = head + "x" * (length - len(head + tail)) + tail
        environ = EnvironBuilder(path="/publish", method="POST", headers=BEARER).get_environ()
        environ["CONTENT_TYPE"] = kind
        environ["wsgi.input"] = io.BytesIO(body.encode())
        environ["wsgi.input_terminated"] = True  # so gunicorn says that it is chunked
        environ.pop("CONTENT_LENGTH", None)
        _, said, _ = run_wsgi_app(app, environ)
        return int(said.split()[0])

    assert [status(length) for length in (65_535, 65_536, 65_537, 70_000)] == [201, 201, 413, 413]


def test_the_token_is_compared_in_constant_time(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[bytes] = []

    def compare(given: bytes, token: bytes) -> bool:
        compared.append(given)
        return given == token

    monkeypatch.setattr("hmac.compare_digest", compare)
    for token, status in (("wrong", 401), (TOKEN, 201)):
        headers = {"Authorization": f"Bearer {token}"}
        assert visitor.post("/publish", json=GOOD, headers=headers).status_code == status
        assert compared.pop() == token.encode()


@pytest.mark.parametrize("token", [None, ""])
def test_without_a_token_nobody_publishes(token: str | None) -> None:
    visitor = Visitor(create(token=token))
    for headers in ({}, {"Authorization": "Bearer "}, {"Authorization": "Bearer None"}):
        answer = visitor.post("/publish", json=GOOD, headers=headers)
        assert answer.status_code == 403
        assert "SSEKIT_TOKEN" in error(answer)


def test_the_token_may_have_any_characters() -> None:
    visitor = Visitor(create(token="schlüssel"))
    header = "Bearer " + "schlüssel".encode().decode("latin-1")
    answer = visitor.post("/publish", json=GOOD, headers={"Authorization": header})
    assert answer.status_code == 201


@pytest.mark.parametrize(
    ("raised", "why"),
    [
        (BrokerUnavailable("gone", maybe_stored=True), "may have been stored"),
        (BrokerUnavailable("gone"), "nothing was stored"),
        (HubClosed("closed"), "shutting down"),
    ],
)
def test_an_unavailable_broker_is_a_503(
    app: Application, visitor: Visitor, raised: Exception, why: str, monkeypatch: Any
) -> None:
    def publish(*_: Any, **__: Any) -> Event:
        raise raised

    monkeypatch.setattr(app.hub, "publish", publish)
    answer = visitor.post("/publish", json=GOOD, headers=BEARER)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert why in error(answer)


# The server.


def status_of(url: str) -> dict[str, Any]:
    with urlopen(f"{url}/status", timeout=10) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def test_the_status_counts_the_streams_of_all_workers(tmp_path: Path) -> None:
    env = {"SSEKIT_URL": f"sqlite:///{tmp_path}/hub.db", "TMPDIR": str(tmp_path)}
    env["SSEKIT_SECRET"] = "s"
    with gunicorn("wsgi:app", "--workers", "2", env=env) as server:
        paths = ["/clock", "/hello", "/scripts/count.py", "/events?channel=a"] * 3
        accept = {"Accept": "text/event-stream"}
        until(lambda: status_of(server.url)["workers"] == 2, what="both workers to be seen")
        clients = [Client(server.url + path, headers=accept) for path in paths]
        until(lambda: status_of(server.url)["streams"] == 12, what="12 streams")
        for client in clients[:5]:
            client.close()
        until(lambda: status_of(server.url)["streams"] == 7, what="7 streams")
        # One that is killed takes its streams with it, and its count.
        os.kill(server.children()[0], signal.SIGKILL)
        killed = [client for client in clients[5:] if gone(client)]
        until(lambda: status_of(server.url)["streams"] == 7 - len(killed), what="the rest")
        until(lambda: status_of(server.url)["workers"] == 2, what="a new worker")
        for client in clients[5:]:
            client.close()
        until(lambda: status_of(server.url)["streams"] == 0, what="no stream")
        assert status_of(server.url)["scripts"] == ["clock.py", "count.py", "hello.py"]
    assert [path for path in os.listdir(tmp_path) if not path.startswith("hub.db")] == []


def gone(client: Client) -> bool:
    while client.read(0.3):
        pass
    return client.ended


def opened(request: Request) -> Any:
    try:
        return urlopen(request, timeout=10)
    except HTTPError as error:
        return error


def test_the_settings_come_from_the_environment(tmp_path: Path) -> None:
    env = {
        "SSEKIT_URL": f"sqlite:///{tmp_path}/hub.db",
        "SSEKIT_ORIGINS": "https://a.example https://b.example",
        "SSEKIT_TOKEN": TOKEN,
        "SSEKIT_ROOM": "open",
        "SSEKIT_HOSTS": "www.example other.example",
    }
    with gunicorn("wsgi:app", env=env) as server:
        origin = {"Origin": "https://b.example"}
        with Client(f"{server.url}/events?channel=a", headers=origin) as viewer:
            assert viewer.headers["Access-Control-Allow-Origin"] == "https://b.example"
            body = json.dumps(GOOD).encode()
            headers = {**BEARER, "Content-Type": "application/json"}
            with Client(
                f"{server.url}/publish", method="POST", headers=headers, body=body
            ) as publisher:
                assert publisher.status == 201
            assert viewer.wait(2)[1].data == "x"
        hosts = [("www.example", 200), ("other.example:80", 200), ("evil.example", 421)]
        for host, status in hosts:
            page = Request(f"{server.url}/", headers={"Host": host})
            with closing(opened(page)) as answer:
                assert answer.status == status
                assert (b'room-token" content="1' in answer.read()) == (status == 200)
