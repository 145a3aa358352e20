"""``ssekit doctor`` at real servers: each broken in one way, which it must name first, or healthy.

An examination is mostly waiting, so those that are asked for run side by side and each test looks
at its own.  The doctor judges by time, and the machine may be busy with something else: what it
says has to be right at least once of a few times.  ``tests/test_doctor_checks.py`` has what needs
no server.
"""

from __future__ import annotations

import re
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

from ssekit.cli.config import Site, apache, nginx
from ssekit.cli.doctor import Plan, Seen, examine, judge
from ssekit.cli.doctor.checks import blame
from ssekit.cli.doctor.http import Manner
from tests import proxies, test_ways
from tests.clients import Client
from tests.ports import free_port
from tests.servers import ROOT, gunicorn
from tests.test_ways import Backends, at, documented_haproxy, with_tls

pytestmark = pytest.mark.slow

SECONDS = 9.0
ORIGIN = "https://page.example"
AT_ONCE = 20
TRIES = 3
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


Start = Callable[[Behind], Plan]


@dataclass(frozen=True)
class Case:
    """How to start it, what must be found first, whose fault it is, and on which side it is."""

    start: Start
    finding: str = ""
    hop: str = ""
    change: str = ""
    where: str = ""


CASES: dict[str, Case] = {}
HEALTHY: dict[str, Case] = {}


def case(
    finding: str, hop: str = "", change: str = "", where: str = ""
) -> Callable[[Start], Start]:
    def add(start: Start) -> Start:
        CASES[start.__name__] = Case(start, finding, hop, change, where)
        return start

    return add


def healthy(start: Start) -> Start:
    HEALTHY[start.__name__] = Case(start)
    return start


def plain(path: str, finding: str, **options: Any) -> None:
    """A case that is only a path of the broken application, with nothing in front."""

    def start(behind: Behind) -> Plan:
        return Plan(f"http://{behind.broken}{path}", **options)

    start.__name__ = "gunicorn" + path
    case(finding)(start)


plain("/error", "status")
plain("/stay-away", "status")
plain("/type", "type")
plain("/charset", "charset")
plain("/moved", "redirect")
plain("/round", "redirect")
plain("/late", "headers-late")
plain("/silent", "no-heartbeat", seconds=40.0)
plain("/short", "short")
plain("/length", "content-length")
plain("/cacheable", "cacheable")
plain("/head", "head")
plain("/post", "post")
plain("/repeats", "resuming")
plain("/live-only", "resuming")
plain("/same-ids", "same-ids")
plain("/flood", "flood")
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


@case("buffered", "nginx", "proxy_buffering off;", where="in front of upstream")
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


@case("idle-cut", "nginx", "proxy_read_timeout")
def nginx_that_cuts_after_its_minute(behind: Behind) -> Plan:
    return Plan(behind.nginx(behind.broken, "proxy_buffering off;") + "/silent", seconds=75.0)


@case("status", "nginx", "start the server", where="in front of upstream")
def nginx_that_looks_for_its_upstream_elsewhere(behind: Behind) -> Plan:
    url = behind.nginx(f"127.0.0.1:{free_port()}")
    return Plan(f"{url}/good", upstream=f"http://{behind.broken}/good")


@case("status", where="upstream")
def nginx_before_an_application_that_fails(behind: Behind) -> Plan:
    url = behind.nginx(behind.broken)
    return Plan(f"{url}/error", upstream=f"http://{behind.broken}/error")


@case("no-retry", where="upstream")
def nginx_before_a_stream_that_both_are_asked_for(behind: Behind) -> Plan:
    url = behind.nginx(behind.broken, "proxy_buffering off;")
    return Plan(f"{url}/no-retry", upstream=f"http://{behind.broken}/no-retry")


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


@case("connection")
def uwsgi_with_an_application_that_sends_connection(behind: Behind) -> Plan:
    server = behind.stack.enter_context(proxies.uwsgi("tests.apps.broken:app"))
    return Plan(f"{server.url}/kept")


@case("resuming")
def pythons_own_cgi_server(behind: Behind) -> Plan:
    return Plan(test_ways.pythons_own_cgi_server(behind.stack, behind.ssekit).url, heartbeat=2.0)


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
    site = with_tls(behind.ssekit.address, folder, http2=False)
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


def apache_that_compresses(behind: Behind, module: str, output_filter: str) -> Plan:
    folder, port = behind.folder(), free_port()
    finite_script(folder)
    site = f"""
        Listen 127.0.0.1:{port}
        ScriptAlias /cgi-bin/ {folder}/
        SetOutputFilter {output_filter}
        <Directory {folder}>
            Require all granted
        </Directory>"""
    modules = ["cgid", "alias", "filter", module]
    behind.stack.enter_context(proxies.apache(site, port, folder, *modules))
    # Apache listens before it can answer.
    with Client(f"http://127.0.0.1:{port}/cgi-bin/absent") as warmed:
        assert warmed.status == 404
    return Plan(f"http://127.0.0.1:{port}/cgi-bin/plain")


@case("compressed", "Apache", "SetEnv no-gzip 1")
def apache_with_mod_deflate(behind: Behind) -> Plan:
    return apache_that_compresses(behind, "deflate", "DEFLATE")


@case("compressed", "Apache", "SetEnv no-brotli 1")
def apache_with_mod_brotli(behind: Behind) -> Plan:
    return apache_that_compresses(behind, "brotli", "BROTLI_COMPRESS")


@case("headers-late", "", "SetOutputFilter none")
def apache_that_is_told_only_not_to_compress(behind: Behind) -> Plan:
    folder, port = behind.folder(), free_port()
    site = Site(listen=f"127.0.0.1:{port}", cgi=str(proxies.scripts(folder)))
    text = apache(site).replace("SetOutputFilter none", "")
    modules = ["cgid", "alias", "deflate"]
    server = proxies.apache(text, port, folder, *modules, main="SetOutputFilter DEFLATE")
    behind.stack.enter_context(server)
    return Plan(f"http://127.0.0.1:{port}/cgi-bin/stream?interval=1.5", heartbeat=5.0)


@case("compressed", "", "GZipMiddleware")
def django_with_gzip_middleware(behind: Behind) -> Plan:
    server = behind.stack.enter_context(gunicorn("tests.apps.django_gzip:app", *IMPATIENT))
    return Plan(f"{server.url}/stream")


@healthy
def django_with_gzip_middleware_and_a_stream_that_it_leaves_alone(behind: Behind) -> Plan:
    server = behind.stack.enter_context(gunicorn("tests.apps.django_gzip:app", *IMPATIENT))
    return Plan(f"{server.url}/untouched")


@case("delayed", "", "option http-no-delay")
def haproxy_as_it_comes(behind: Behind) -> Plan:
    folder, port = behind.folder(), free_port()
    lines = documented_haproxy(behind.ssekit, port).splitlines()
    text = "\n".join(line for line in lines if not line.strip().startswith("option "))
    behind.stack.enter_context(proxies.haproxy(f"{text}\n", port, folder))
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


@healthy
def a_stream_without_ssekit(behind: Behind) -> Plan:
    return Plan(f"http://{behind.broken}/good")


@healthy
def the_demo_and_its_hub(behind: Behind) -> Plan:
    folder = str(behind.folder())
    environment = {"SSEKIT_URL": f"sqlite:///{folder}/hub.db", "XDG_STATE_HOME": folder}
    server = behind.stack.enter_context(gunicorn("wsgi:app", env=environment))
    return Plan(f"{server.url}/events?channel=news")


@healthy
def a_stream_behind_nginx_asked_on_both_sides(behind: Behind) -> Plan:
    url = behind.nginx(behind.ssekit.address)
    return Plan(f"{url}/stream", upstream=f"http://{behind.ssekit.address}/stream", heartbeat=2.0)


def by_a_way(way: Callable[[ExitStack, Backends], test_ways.Place]) -> None:
    def start(behind: Behind) -> Plan:
        return Plan(way(behind.stack, behind.ssekit).url, heartbeat=2.0)

    start.__name__ = way.__name__
    healthy(start)


for way in test_ways.WAYS:
    if way is not test_ways.pythons_own_cgi_server:
        by_a_way(way)

ALL = {**CASES, **HEALTHY}
LONGEST = ["nginx_that_cuts_after_its_minute", "gunicorn/silent"]
Results = dict[str, "Future[Seen]"]


@pytest.fixture(scope="module")
def examined(request: pytest.FixtureRequest, behind: Behind) -> Iterator[Results]:
    """The examinations whose tests were asked for, under way, those that take long first."""
    asked = {
        str(item.callspec.params["name"])
        for item in request.session.items
        if item.fspath == request.fspath
        and hasattr(item, "callspec")
        and "name" in item.callspec.params
    }
    order = sorted(asked, key=lambda name: (name not in LONGEST, name))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {name: pool.submit(examination, name, behind) for name in order}


def examination(name: str, behind: Behind, patience: int = 1) -> Seen:
    with ExitStack() as stack:
        plan = ALL[name].start(replace(behind, stack=stack))
        if plan.seconds == Plan.seconds and name not in LONGEST:
            plan = replace(plan, seconds=SECONDS * patience)
        return examine(plan, Manner(insecure=True), lambda _: None)


def examinations(name: str, examined: Results, behind: Behind) -> Iterator[Seen]:
    yield examined[name].result()
    for patience in range(2, TRIES + 1):
        yield examination(name, behind, patience)


def names_first(seen: Seen, wanted: Case) -> bool:
    for one in judge(seen)[:1]:
        where = blame(seen).get(one.name, "")
        found = (one.name, one.hop, where) == (wanted.finding, wanted.hop, wanted.where)
        return found and wanted.change in one.change
    return False


def show(tried: list[Seen]) -> str:
    return "\n\n".join(
        "\n".join(f"{one.name} ({one.hop}): {one.seen} -> {one.change}" for one in judge(seen))
        or "nothing was found"
        for seen in tried
    )


@pytest.mark.parametrize("name", CASES)
def test_the_doctor_names_the_cause_first(name: str, examined: Results, behind: Behind) -> None:
    tried = []
    for seen in examinations(name, examined, behind):
        tried.append(seen)
        if names_first(seen, CASES[name]):
            return
    pytest.fail(f"{CASES[name]} was not named first:\n{show(tried)}")


@pytest.mark.parametrize("name", HEALTHY)
def test_the_doctor_finds_nothing_where_nothing_is_wrong(
    name: str, examined: Results, behind: Behind
) -> None:
    tried = []
    for seen in examinations(name, examined, behind):
        tried.append(seen)
        if not judge(seen):
            return
    pytest.fail(f"findings where nothing is wrong:\n{show(tried)}")


def test_every_finding_of_the_documentation_has_a_real_server_here() -> None:
    table = (ROOT / "docs" / "doctor.md").read_text().partition("## Findings")[2]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    documented = {name for row in rows for name in re.findall("`([^`]+)`", row)}
    assert {one.finding for one in CASES.values()} == documented
