"""Host names: what answers to them, and that no page of another site reads a stream of ours.

DNS rebinding: evil.example first names its own server, then 127.0.0.1.  Its page then asks us, and
the browser takes our answer for evil.example's.  The request says so in ``Host``.
"""

from __future__ import annotations

import http.client
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright
from werkzeug.test import Client as Visitor
from werkzeug.test import EnvironBuilder, run_wsgi_app

from ssekit.demo.app import create
from ssekit.trusted_hosts import TrustedHosts, hosts_of
from tests import commands
from tests.apps.named import app as named
from tests.components import need
from tests.servers import ROOT, gunicorn

SCRIPTS = ROOT / "scripts" / "cgi-bin"
ROUTES = [
    "/",
    "/page.js",
    "/status",
    "/clock",
    "/hello",
    "/scripts/count.py",
    "/events?channel=a",
    "/probe",
    "/publish",
    "/room",
    "/nothing",
]


def status(app: Any, host: str | None, path: str = "/", method: str = "HEAD") -> int:
    environ = EnvironBuilder(path, method=method).get_environ()
    _, line, _ = run_wsgi_app(app, {**environ, "HTTP_HOST": host or ""})
    return int(line.split()[0])


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8000", "a.localhost", "127.0.0.1", "127.0.0.1:80", "[::1]:8000"],
)
def test_the_names_of_this_machine_are_always_known(host: str) -> None:
    assert status(TrustedHosts(named), host) == 200


@pytest.mark.parametrize(
    ("hosts", "host", "expected"),
    [
        ((), "www.example", 421),
        ((), "localhost.evil.example", 421),
        ((), "evillocalhost", 421),
        ((), "127.0.0.1.evil.example", 421),
        ((), "127.0.0.2", 421),
        ((), "[::2]", 421),
        (("www.example",), "www.example", 200),
        (("WWW.Example",), "www.example:8443", 200),
        (("www.example",), "a.www.example", 421),
        (("www.example",), "xwww.example", 421),
        ((".example",), "www.example", 200),
        ((".a.example",), "a.example", 200),
        ((".a.example",), "ba.example", 421),
        (("bücher.example",), "xn--bcher-kva.example", 200),
        (("2001:db8::1",), "[2001:db8::1]:80", 200),
        (("[2001:DB8::1]",), "[2001:db8::1]", 200),
        (("*",), "whatever.example", 200),
        (("*",), "", 400),
        ((), "", 400),
        ((), "localhost:port", 400),
        ((), "localhost, evil.example", 400),
        ((), "localhost/evil", 400),
        ((), "user@localhost", 400),
        ((), "http://[", 400),
        ((), "\xff", 400),
    ],
)
def test_another_name_is_answered_only_if_it_was_given(
    hosts: tuple[str, ...], host: str, expected: int
) -> None:
    assert status(TrustedHosts(named, hosts), host) == expected


@pytest.mark.parametrize("name", ["http://a.example", "a.example:80", "a b", "a/b", "", ".", "\n"])
def test_what_is_not_a_host_name_is_refused_at_the_start(name: str) -> None:
    with pytest.raises(ValueError, match="without scheme and port"):
        TrustedHosts(named, [name])


def test_the_setting_has_spaces_or_commas_between_names() -> None:
    assert hosts_of("") == ()
    assert hosts_of("a.example, b.example c.example") == ("a.example", "b.example", "c.example")


def test_a_refusal_says_what_to_set() -> None:
    visitor = Visitor(TrustedHosts(named))
    answer = visitor.get("/", environ_overrides={"HTTP_HOST": "www.example:80"})
    assert "SSEKIT_HOSTS" in answer.text
    assert "--host www.example" in answer.text
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
def test_every_route_of_the_demo_answers_to_known_names_only(path: str, method: str) -> None:
    app = create(scripts=SCRIPTS, room="open", secret=b"s", hosts=["www.example"], origins="*")
    assert status(app, "evil.example", path, method) == 421
    for host in ("www.example", "localhost"):
        # Only the heads: the body of a stream has no end.
        answer = Visitor(app).open(
            path, method=method, environ_overrides={"HTTP_HOST": host}, buffered=False
        )
        answer.close()
        assert answer.status_code not in (400, 421)


# Real servers.


def asked(port: int, host: str, path: str = "/") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers={"Host": host})
        return connection.getresponse().status
    finally:
        connection.close()


def bound(line: str) -> int:
    return int(line.strip().rpartition(":")[2].partition("/")[0])


@pytest.mark.parametrize("target", ["clock.py", ".", "tests.apps.named:app"])
def test_serve_answers_to_the_hosts_that_were_named(tmp_path: Path, target: str) -> None:
    (tmp_path / "clock.py").write_text("from ssekit.script import send\nsend(1)\n")
    path = "/clock.py" if target == "." else "/"
    options = ["--bind", "127.0.0.1:0", "--host", "www.example", "--host", ".b.example"]
    with commands.ssekit("serve", target, *options, cwd=tmp_path) as command:
        command.line()
        port = bound(command.line())
        hosts = ["www.example", "a.b.example", "localhost", f"127.0.0.1:{port}", "evil.example"]
        assert [asked(port, host, path) for host in hosts] == [200, 200, 200, 200, 421]
        command.interrupt()
        assert command.code() == 0


def test_serve_takes_the_hosts_from_the_environment_and_from_its_address(tmp_path: Path) -> None:
    (tmp_path / "clock.py").write_text("from ssekit.script import send\nsend(1)\n")
    env = {"SSEKIT_HOSTS": "www.example"}
    options = ["serve", "clock.py", "--bind", "127.0.0.2:0"]
    with commands.ssekit(*options, cwd=tmp_path, env=env) as command:
        command.line()
        port = bound(command.line())
        for host, expected in [("127.0.0.2", 200), ("www.example", 200), ("a.example", 421)]:
            # One each: a kept connection may be closed before a busy machine comes to the next.
            with http_connection("127.0.0.2", port) as connection:
                connection.request("GET", "/", headers={"Host": host})
                answer = connection.getresponse()
                answer.read()
                assert answer.status == expected
        command.interrupt()
        assert command.code() == 0


def http_connection(host: str, port: int) -> Any:
    return closing(http.client.HTTPConnection(host, port, timeout=10))


@pytest.mark.parametrize(("name", "where"), [("http://a.example", "--host"), ("a:1", "--host")])
def test_serve_refuses_what_is_not_a_host(tmp_path: Path, name: str, where: str) -> None:
    (tmp_path / "clock.py").touch()
    done = commands.ran("serve", "clock.py", "--host", name, cwd=tmp_path)
    assert (done.returncode, f"{where}: {name!r} is not a host name" in done.stderr) == (2, True)
    done = commands.ran("serve", "clock.py", cwd=tmp_path, env={"SSEKIT_HOSTS": name})
    assert (done.returncode, f"SSEKIT_HOSTS: {name!r}" in done.stderr) == (2, True)


REBOUND = """async (path) => {
    try {
        const answer = await fetch(path, { cache: "no-store" });
        return answer.ok ? "read" : answer.status;
    } catch { return "failed"; }
}"""


def test_a_page_of_another_site_reads_nothing_by_rebinding_its_name(tmp_path: Path) -> None:
    env = {"SSEKIT_URL": f"sqlite:///{tmp_path}/hub.db", "SSEKIT_ROOM": "open"}
    env["SSEKIT_SECRET"] = "s"
    with gunicorn("wsgi:app", env=env) as server, sync_playwright() as playwright:
        options = [
            # What evil.example's name server answers by now.
            "--host-resolver-rules=MAP evil.example 127.0.0.1",
            # Chromium's own protection, which other browsers do not have.
            "--disable-features=LocalNetworkAccessChecks",
        ]
        browser = playwright.chromium.launch(
            executable_path=need("chromium"), args=["--no-sandbox", *options]
        )
        page = browser.new_page()
        evil = f"http://evil.example:{server.port}"
        # The page that evil.example itself sent before: its scripts run in its origin.
        page.route(f"{evil}/own", lambda route: route.fulfill(body="<title>evil</title>"))
        page.goto(f"{evil}/own")
        for path in ("/", "/status", "/events?channel=room", "/clock", "/scripts/count.py"):
            assert page.evaluate(REBOUND, path) == 421
        browser.close()
