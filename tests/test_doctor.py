"""``ssekit doctor`` at real servers: each broken in one way, which it must name first, or healthy.

An examination is mostly waiting, so those that are asked for run side by side and each test looks
at its own.  ``tests/test_doctor_checks.py`` has what needs no server.
"""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from ssekit.config import Site, nginx
from ssekit.doctor import Finding, Plan, Seen, examine, judge
from ssekit.doctor.http import Manner
from tests import proxies, test_ways
from tests.clients import Client
from tests.ports import free_port
from tests.servers import gunicorn
from tests.test_ways import Backends, at

SECONDS = 9.0
ORIGIN = "https://page.example"
AT_ONCE = 20
IMPATIENT = ("--graceful-timeout", "1")  # these streams do not end when they are told to


@dataclass
class Behind:
    """What the cases share: wrong streams, ssekit's own, and where to put what they start."""

    broken: str
    ssekit: Backends
    stack: ExitStack

    def folder(self) -> Path:
        return self.stack.enter_context(proxies.open_folder())

    def nginx(self, upstream: str, lines: str = "", outside: str = "") -> str:
        """A reverse proxy as one finds it in many places, with some lines of the case."""
        port = free_port()
        site = f"""
            {outside}
            server {{
                listen 127.0.0.1:{port};
                location / {{ proxy_pass http://{upstream}; {lines} }}
            }}"""
        self.stack.enter_context(proxies.nginx(site, port, self.folder()))
        return f"http://127.0.0.1:{port}"


@dataclass(frozen=True)
class Case:
    """How to break it, what must be found first, and whose fault it is."""

    start: Callable[[Behind], Plan]
    finding: str
    hop: str = ""
    change: str = ""

    @property
    def name(self) -> str:
        return self.start.__name__


CASES: dict[str, Case] = {}


def case(finding: str, hop: str = "", change: str = "") -> Any:
    def add(start: Callable[[Behind], Plan]) -> Callable[[Behind], Plan]:
        CASES[start.__name__] = Case(start, finding, hop, change)
        return start

    return add


def plain(path: str, finding: str, **options: Any) -> None:
    """A case that is only a path of the broken application, with nothing in front."""

    def start(behind: Behind) -> Plan:
        return Plan(f"http://{behind.broken}{path}", **options)

    start.__name__ = "gunicorn" + path
    CASES[start.__name__] = Case(start, finding)


plain("/error", "status")
plain("/stay-away", "status")
plain("/type", "type")
plain("/charset", "charset")
plain("/moved", "redirect")
plain("/round", "redirect")
plain("/late", "headers-late")
plain("/silent", "no-heartbeat", heartbeat=1.0)
plain("/short", "short")
plain("/length", "content-length")
plain("/cacheable", "cacheable")
plain("/head", "head")
plain("/post", "post")
plain("/repeats", "resuming")
plain("/live-only", "resuming")
plain("/same-ids", "same-ids")
plain("/no-ids", "no-ids")
plain("/no-retry", "no-retry")
plain("/unknown-field", "format")
plain("/bad-id", "format")
plain("/bad-retry", "format")
plain("/latin", "format")
plain("/no-data", "format")
plain("/good", "cors", origin=ORIGIN)
plain("/cors-seed", "cors", origin=ORIGIN)
plain("/cors-twice", "cors", origin=ORIGIN)
plain("/reflects", "cors-reflects", origin=ORIGIN)
plain("/no-vary", "cors-vary", origin=ORIGIN)
plain("/no-preflight", "preflight", origin=ORIGIN)


@case("unreachable")
def nobody_listens(behind: Behind) -> Plan:
    return Plan(f"http://127.0.0.1:{free_port()}/")


@case("buffered", "nginx", "proxy_buffering off;")
def nginx_as_it_comes(behind: Behind) -> Plan:
    return Plan(behind.nginx(behind.broken) + "/good")


@case("buffered", "nginx", "proxy_buffering off;")
def nginx_as_it_comes_compared_with_its_upstream(behind: Behind) -> Plan:
    url = behind.nginx(behind.broken) + "/good"
    return Plan(url, upstream=f"http://{behind.broken}/good")


@case("buffered", "nginx", "remove proxy_ignore_headers X-Accel-Buffering;")
def nginx_that_ignores_x_accel_buffering(behind: Behind) -> Plan:
    lines = "proxy_ignore_headers X-Accel-Buffering; proxy_buffer_size 1k; proxy_buffers 2 1k;"
    lines += "proxy_busy_buffers_size 1k;"
    return Plan(behind.nginx(behind.ssekit.address, lines) + "/stream?interval=0.2")


@case("idle-cut", "nginx", "proxy_read_timeout")
def nginx_that_cuts_after_two_seconds(behind: Behind) -> Plan:
    lines = "proxy_buffering off; proxy_read_timeout 2s;"
    return Plan(behind.nginx(behind.broken, lines) + "/silent", heartbeat=1.0)


@case("lingers")
def a_relay_that_ignores_who_leaves(behind: Behind) -> Plan:
    port = behind.stack.enter_context(relay(behind.ssekit.port))
    return Plan(f"http://127.0.0.1:{port}/stream", seconds=20.0)


@contextmanager
def relay(port: int) -> Iterator[int]:
    """A hop that reads on when its client has left, as caches that want a whole answer do."""

    class Relay(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            request = self.request.recv(65536)
            with (
                suppress(ConnectionError),
                socket.create_connection(("127.0.0.1", port), timeout=20) as upstream,
            ):
                upstream.sendall(request)
                while data := upstream.recv(65536):
                    with suppress(OSError):
                        self.request.sendall(data)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Relay) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@case("resuming")
def nginx_that_drops_last_event_id(behind: Behind) -> Plan:
    lines = 'proxy_set_header Last-Event-ID "";'
    return Plan(behind.nginx(behind.ssekit.address, lines) + "/stream")


@case("connection")
def nginx_that_adds_connection(behind: Behind) -> Plan:
    lines = "proxy_buffering off; add_header Connection keep-alive;"
    return Plan(behind.nginx(behind.broken, lines) + "/good")


@case("cached")
def nginx_that_caches(behind: Behind) -> Plan:
    lines = "proxy_cache c; proxy_cache_valid any 1m; proxy_ignore_headers Cache-Control;"
    lines += "add_header X-Cache $upstream_cache_status;"
    folder = behind.folder() / "cache"
    outside = f"proxy_cache_path {folder} keys_zone=c:1m;"
    return Plan(behind.nginx(behind.broken, lines, outside) + "/short")


@case("http1")
def nginx_with_tls_and_without_http_2(behind: Behind) -> Plan:
    folder = behind.folder()
    site = Site(
        listen=f"127.0.0.1:{free_port()}",
        upstream=behind.ssekit.address,
        http2=False,
        **proxies.certificate_files(folder),
    )
    behind.stack.enter_context(proxies.nginx(nginx(site), site.port, folder))
    return Plan(f"{at(site)}stream")


@case("buffered", "nginx", "NO_BUFFERING 1;")
def nginx_and_fcgiwrap_as_they_come(behind: Behind) -> Plan:
    folder, port = behind.folder(), free_port()
    script = finite_script(folder)
    socket = behind.stack.enter_context(proxies.fcgiwrap(folder))
    site = f"""
        server {{
            listen 127.0.0.1:{port};
            location / {{
                fastcgi_pass {socket};
                fastcgi_param SCRIPT_FILENAME {script};
                fastcgi_param REQUEST_METHOD $request_method;
            }}
        }}"""
    behind.stack.enter_context(proxies.nginx(site, port, folder))
    return Plan(f"http://127.0.0.1:{port}/stream")


def finite_script(folder: Path) -> Path:
    """A CGI script in a shell, which ends by itself after a second and a half."""
    script = folder / "plain"
    script.write_text(
        "#!/bin/sh\n"
        "printf 'Content-Type: text/event-stream\\nCache-Control: no-cache\\n\\n'\n"
        "printf 'retry: 2000\\n\\n'\n"
        "for i in 1 2 3 4 5; do printf 'data: %s\\nid: %s\\n\\n' $i $i; sleep 0.3; done\n"
    )
    script.chmod(0o755)
    return script


@case("buffered", "lighttpd", "server.stream-response-body = 2")
def lighttpd_as_it_comes(behind: Behind) -> Plan:
    folder, port = behind.folder(), free_port()
    finite_script(folder)
    text = f"""
        server.modules = ( "mod_cgi", "mod_alias" )
        server.port = {port}
        server.bind = "127.0.0.1"
        server.document-root = "{folder}"
        cgi.assign = ( "plain" => "" )
    """
    behind.stack.enter_context(proxies.lighttpd(text, port, folder))
    return Plan(f"http://127.0.0.1:{port}/plain")


@case("compressed", "Apache", "SetEnv no-gzip 1")
def apache_with_mod_deflate(behind: Behind) -> Plan:
    folder, port = behind.folder(), free_port()
    finite_script(folder)
    site = f"""
        Listen 127.0.0.1:{port}
        ScriptAlias /cgi-bin/ {folder}/
        SetOutputFilter DEFLATE
        <Directory {folder}>
            Require all granted
        </Directory>"""
    modules = ["cgid", "alias", "filter", "deflate"]
    behind.stack.enter_context(proxies.apache(site, port, folder, *modules))
    # Apache listens before it can answer.
    with Client(f"http://127.0.0.1:{port}/cgi-bin/absent") as warmed:
        assert warmed.status == 404
    return Plan(f"http://127.0.0.1:{port}/cgi-bin/plain")


@case("compressed", "", "GZipMiddleware")
def django_with_gzip_middleware(behind: Behind) -> Plan:
    server = behind.stack.enter_context(gunicorn("tests.apps.django_gzip:app", *IMPATIENT))
    return Plan(f"{server.url}/stream")


@case("delayed", "", "option http-no-delay")
def haproxy_as_it_comes(behind: Behind) -> Plan:
    folder, port = behind.folder(), free_port()
    behind.stack.enter_context(proxies.haproxy(behind.ssekit.address, port, folder))
    return Plan(f"http://127.0.0.1:{port}/stream")


@case("cut")
def gunicorn_with_sync_workers(behind: Behind) -> Plan:
    server = behind.stack.enter_context(
        gunicorn("tests.apps.broken:app", "--timeout", "3", *IMPATIENT, worker="sync")
    )
    return Plan(f"{server.url}/good", seconds=10.0)


@pytest.fixture(scope="module")
def behind() -> Iterator[Behind]:
    with ExitStack() as stack:
        broken = stack.enter_context(gunicorn("tests.apps.broken:app", *IMPATIENT))
        folder = stack.enter_context(proxies.open_folder())
        socket = f"unix:{folder}/gunicorn.sock"
        ours = stack.enter_context(
            gunicorn(test_ways.APP, "--bind", socket, env={"SSEKIT_TEST_FOLDER": str(folder)})
        )
        backends = Backends(folder, ours.port, f"127.0.0.1:{ours.port}", socket)
        yield Behind(f"127.0.0.1:{broken.port}", backends, stack)


Results = dict[str, "Future[Seen]"]


@pytest.fixture(scope="module")
def examined(request: pytest.FixtureRequest, behind: Behind) -> Iterator[Results]:
    """The examinations of the cases and ways whose tests were asked for, under way."""
    asked = {
        str(item.callspec.params["name"])
        for item in request.session.items
        if item.fspath == request.fspath
        and hasattr(item, "callspec")
        and "name" in item.callspec.params
    }
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {name: pool.submit(examination, name, behind) for name in sorted(asked)}


def examination(name: str, behind: Behind) -> Seen:
    with ExitStack() as stack:
        if name in CASES:
            plan = CASES[name].start(replace(behind, stack=stack))
        else:
            place = getattr(test_ways, name)(stack, behind.ssekit)
            plan = Plan(place.url, heartbeat=2.0)
        if plan.seconds == Plan.seconds:
            plan = replace(plan, seconds=SECONDS)
        return examine(plan, Manner(insecure=True), lambda _: None)


def show(findings: list[Finding]) -> str:
    return "\n".join(f"{one.name} ({one.hop}): {one.seen} -> {one.change}" for one in findings)


@pytest.mark.parametrize("name", CASES)
def test_the_doctor_names_the_cause_first(name: str, examined: Results) -> None:
    wanted = CASES[name]
    findings = judge(examined[name].result())
    assert findings, "nothing was found"
    assert (findings[0].name, findings[0].hop) == (wanted.finding, wanted.hop), show(findings)
    assert wanted.change in findings[0].change


HEALTHY = [way.__name__ for way in test_ways.WAYS if way is not test_ways.pythons_own_cgi_server]


@pytest.mark.parametrize("name", HEALTHY)
def test_the_doctor_finds_nothing_where_nothing_is_wrong(name: str, examined: Results) -> None:
    findings = judge(examined[name].result())
    assert not findings, show(findings)
