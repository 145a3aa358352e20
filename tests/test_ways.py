"""Every way from a source to a client, with the real servers of it.

One way is one chain of servers, started once for this module's tests.  What is claimed of each in
``docs/deployment.md`` is shown here: events come one by one, a client that leaves ends its source,
``Last-Event-ID`` arrives, and a reload of the server loses nothing for a client that comes back.

Every bound of time is one that the way can hold, so it has to be held at least once of a few times:
the machine may be busy with something else.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from ssekit.cli.config import Site, apache, lighttpd, nginx
from tests import proxies
from tests.apps.ways import HEARTBEAT
from tests.clients import Client
from tests.curl import Curl
from tests.ports import free_port
from tests.servers import ROOT, Server, gunicorn
from tests.waiting import mostly_below, until

pytestmark = pytest.mark.slow

APP = "tests.apps.ways:app"
numbers = count()


@dataclass
class Place:
    """One way, started."""

    url: str
    folder: Path
    server: Server | None = None
    reload: signal.Signals | None = None
    connect: Callable[..., Any] = Client
    prefix: str = ""
    heartbeats: int = 0
    """How many have to go out before it is noticed that the client has left."""
    coding: str = ""
    """How the server encodes a stream for a browser, all of which take gzip."""
    last_id_by_query: bool = False
    """The server passes no Last-Event-ID, so that only the query can carry it."""
    passes_authorization: bool = True
    guards: bool = False
    """Headers that gunicorn would believe do not come through from outside."""

    def open(self, query: str = "", headers: Mapping[str, str] = {}) -> Any:
        headers = {"Accept-Encoding": "gzip, deflate, br", **headers}
        return self.connect(f"{self.url}?{query}", headers=headers)


@dataclass
class Backends:
    """gunicorn as the proxies see it: at a port and at a unix socket."""

    folder: Path
    port: int
    address: str
    socket: str


@pytest.fixture(scope="module")
def backends() -> Iterator[Backends]:
    with ExitStack() as stack:
        folder = stack.enter_context(proxies.open_folder())
        socket = f"unix:{folder}/gunicorn.sock"
        server = stack.enter_context(
            gunicorn(APP, "--bind", socket, env={"SSEKIT_TEST_FOLDER": str(folder)})
        )
        yield Backends(folder, server.port, f"127.0.0.1:{server.port}", socket)


# The ways.  Each enters what it starts into the stack and returns the place.


def gunicorn_alone(stack: ExitStack, backends: Backends) -> Place:
    environment = {"SSEKIT_TEST_FOLDER": str(backends.folder)}
    server = stack.enter_context(gunicorn(APP, env=environment))
    return Place(f"{server.url}/stream", backends.folder, server, signal.SIGHUP)


def gthread_alone(stack: ExitStack, backends: Backends) -> Place:
    environment = {"SSEKIT_TEST_FOLDER": str(backends.folder)}
    server = stack.enter_context(gunicorn(APP, "--threads", "8", worker="gthread", env=environment))
    return Place(f"{server.url}/stream", backends.folder, server, signal.SIGHUP)


def waitress_alone(stack: ExitStack, backends: Backends) -> Place:
    server = stack.enter_context(proxies.waitress(APP, SSEKIT_TEST_FOLDER=str(backends.folder)))
    return Place(f"{server.url}/stream", backends.folder)


def uwsgi_alone(stack: ExitStack, backends: Backends) -> Place:
    server = stack.enter_context(proxies.uwsgi(APP, SSEKIT_TEST_FOLDER=str(backends.folder)))
    return Place(f"{server.url}/stream", backends.folder, server, signal.SIGHUP)


def at(site: Site) -> str:
    return f"{'https' if site.tls else 'http'}://127.0.0.1:{site.port}{site.prefix}"


def behind_nginx(
    stack: ExitStack, backends: Backends, site: str, port: int, http: str = ""
) -> Place:
    folder = stack.enter_context(proxies.open_folder())
    server = stack.enter_context(proxies.nginx(site, port, folder, http=http))
    url = f"http://127.0.0.1:{port}/stream"
    return Place(url, backends.folder, server, signal.SIGHUP, guards=True)


def shipped(backends: Backends, port: int) -> str:
    """``nginx/ssekit.conf`` with the two things changed that every user changes."""
    text = (ROOT / "nginx" / "ssekit.conf").read_text()
    assert "listen 80;" in text
    assert "server 127.0.0.1:8000;" in text
    text = text.replace("listen 80;", f"listen 127.0.0.1:{port};")
    return text.replace("server 127.0.0.1:8000;", f"server {backends.address};")


def nginx_as_shipped(stack: ExitStack, backends: Backends) -> Place:
    port = free_port()
    return behind_nginx(stack, backends, shipped(backends, port), port)


def nginx_with_http_1_0_upstream(stack: ExitStack, backends: Backends) -> Place:
    port = free_port()
    site = shipped(backends, port)
    assert "proxy_http_version 1.1;" in site
    return behind_nginx(stack, backends, site.replace("proxy_http_version 1.1;", ""), port)


def nginx_with_gzip(stack: ExitStack, backends: Backends) -> Place:
    port = free_port()
    gzip = "gzip on; gzip_min_length 1; gzip_types text/event-stream; gzip_proxied any;"
    place = behind_nginx(stack, backends, shipped(backends, port), port, http=gzip)
    place.coding = "gzip"
    return place


def nginx_to_a_unix_socket_below_a_prefix(stack: ExitStack, backends: Backends) -> Place:
    port = free_port()
    site = Site(listen=f"127.0.0.1:{port}", upstream=backends.socket, prefix="/live/")
    place = behind_nginx(stack, backends, nginx(site), port)
    place.url, place.prefix = f"{at(site)}stream", "/live"
    return place


def with_tls(upstream: str, folder: Path, **options: Any) -> Site:
    """A site on a free port, with a certificate in the folder."""
    files = proxies.certificate_files(folder)
    return Site(listen=f"127.0.0.1:{free_port()}", upstream=upstream, **files, **options)


def nginx_with_tls_and_http_2(stack: ExitStack, backends: Backends) -> Place:
    folder = stack.enter_context(proxies.open_folder())
    site = with_tls(backends.address, folder, name="localhost")
    server = stack.enter_context(proxies.nginx(nginx(site), site.port, folder))
    return Place(f"{at(site)}stream", backends.folder, server, signal.SIGHUP, Curl, guards=True)


def nginx_and_fcgiwrap(stack: ExitStack, backends: Backends) -> Place:
    folder = stack.enter_context(proxies.open_folder())
    site = Site(
        listen=f"127.0.0.1:{free_port()}",
        cgi=str(proxies.scripts(folder)),
        fcgiwrap=stack.enter_context(proxies.fcgiwrap(folder)),
    )
    server = stack.enter_context(proxies.nginx(nginx(site), site.port, folder))
    url = f"{at(site)}cgi-bin/stream"
    return Place(url, folder, server, signal.SIGHUP, heartbeats=1, guards=True)


# A server that compresses whatever it sends: the printed lines must prevail.
DEFLATE = ("filter", "deflate", "brotli")
DEFLATES = """SetOutputFilter BROTLI_COMPRESS;DEFLATE
AddOutputFilterByType BROTLI_COMPRESS;DEFLATE text/event-stream"""


def apache_running_cgi(stack: ExitStack, backends: Backends) -> Place:
    folder = stack.enter_context(proxies.open_folder())
    site = Site(listen=f"127.0.0.1:{free_port()}", cgi=str(proxies.scripts(folder)))
    server = stack.enter_context(
        proxies.apache(apache(site), site.port, folder, "cgid", "alias", *DEFLATE, main=DEFLATES)
    )
    url = f"{at(site)}cgi-bin/stream"
    return Place(url, folder, server, signal.SIGUSR1, heartbeats=2, guards=True)


def apache_before_gunicorn(stack: ExitStack, backends: Backends) -> Place:
    folder = stack.enter_context(proxies.open_folder())
    site = Site(listen=f"127.0.0.1:{free_port()}", upstream=backends.address, name="localhost")
    modules = ["proxy", "proxy_http", *DEFLATE]
    server = stack.enter_context(
        proxies.apache(apache(site), site.port, folder, *modules, main=DEFLATES)
    )
    url = f"{at(site)}stream"
    return Place(url, backends.folder, server, signal.SIGUSR1, heartbeats=2, guards=True)


def apache_with_tls_and_http_2_to_a_unix_socket_below_a_prefix(
    stack: ExitStack, backends: Backends
) -> Place:
    folder = stack.enter_context(proxies.open_folder())
    site = with_tls(backends.socket, folder, prefix="/live/")
    modules = ["proxy", "proxy_http", "socache_shmcb", "ssl", "http2"]
    server = stack.enter_context(proxies.apache(apache(site), site.port, folder, *modules))
    url = f"{at(site)}stream"
    return Place(
        url, backends.folder, server, signal.SIGUSR1, Curl, "/live", heartbeats=1, guards=True
    )


def lighttpd_running_cgi_below_a_prefix(stack: ExitStack, backends: Backends) -> Place:
    folder = stack.enter_context(proxies.open_folder())
    site = Site(
        listen=f"127.0.0.1:{free_port()}", cgi=str(proxies.scripts(folder)), prefix="/live/"
    )
    server = stack.enter_context(proxies.lighttpd(lighttpd(site), site.port, folder))
    url = f"{at(site)}cgi-bin/stream"
    return Place(url, folder, server, signal.SIGUSR1, prefix="/live", heartbeats=1, guards=True)


def lighttpd_before_gunicorn_below_a_prefix(stack: ExitStack, backends: Backends) -> Place:
    folder = stack.enter_context(proxies.open_folder())
    site = Site(
        listen=f"127.0.0.1:{free_port()}",
        upstream=backends.address,
        prefix="/live/",
        cgi=str(proxies.scripts(folder)),
    )
    server = stack.enter_context(proxies.lighttpd(lighttpd(site), site.port, folder))
    return Place(
        f"{at(site)}stream",
        backends.folder,
        server,
        signal.SIGUSR1,
        prefix="/live",
        heartbeats=1,
        guards=True,
    )


def lighttpd_with_tls_and_http_2_to_a_unix_socket(stack: ExitStack, backends: Backends) -> Place:
    folder = stack.enter_context(proxies.open_folder())
    site = with_tls(backends.socket, folder, name="localhost")
    server = stack.enter_context(proxies.lighttpd(lighttpd(site), site.port, folder))
    url = f"{at(site)}stream"
    return Place(url, backends.folder, server, signal.SIGUSR1, Curl, heartbeats=1, guards=True)


def documented_haproxy(backends: Backends, port: int) -> str:
    """The configuration in ``docs/deployment.md``, with the two addresses changed."""
    text = (ROOT / "docs" / "deployment.md").read_text().partition("```\ndefaults\n")[2]
    text = "defaults\n" + text.partition("```")[0]
    assert "bind :80\n" in text
    assert "server gunicorn 127.0.0.1:8000\n" in text
    text = text.replace("bind :80\n", f"bind 127.0.0.1:{port}\n")
    return text.replace("127.0.0.1:8000", backends.address)


def haproxy_before_gunicorn(stack: ExitStack, backends: Backends) -> Place:
    folder = stack.enter_context(proxies.open_folder())
    port = free_port()
    text = documented_haproxy(backends, port)
    server = stack.enter_context(proxies.haproxy(text, port, folder))
    return Place(
        f"http://127.0.0.1:{port}/stream", backends.folder, server, signal.SIGUSR2, guards=True
    )


def pythons_own_cgi_server(stack: ExitStack, backends: Backends) -> Place:
    if sys.version_info >= (3, 15):
        pytest.skip("http.server --cgi was taken out of Python 3.15")
    folder = stack.enter_context(proxies.open_folder())
    proxies.scripts(folder)
    server = stack.enter_context(proxies.python_cgi_server(folder))
    url = f"{server.url}/cgi-bin/stream"
    return Place(url, folder, heartbeats=2, last_id_by_query=True, passes_authorization=False)


WAYS = [
    gunicorn_alone,
    gthread_alone,
    waitress_alone,
    uwsgi_alone,
    nginx_as_shipped,
    nginx_with_http_1_0_upstream,
    nginx_with_gzip,
    nginx_to_a_unix_socket_below_a_prefix,
    nginx_with_tls_and_http_2,
    nginx_and_fcgiwrap,
    apache_running_cgi,
    apache_before_gunicorn,
    apache_with_tls_and_http_2_to_a_unix_socket_below_a_prefix,
    lighttpd_running_cgi_below_a_prefix,
    lighttpd_before_gunicorn_below_a_prefix,
    lighttpd_with_tls_and_http_2_to_a_unix_socket,
    haproxy_before_gunicorn,
    pythons_own_cgi_server,
]


@pytest.fixture(scope="module", params=WAYS, ids=lambda way: way.__name__)
def place(request: pytest.FixtureRequest, backends: Backends) -> Iterator[Place]:
    with ExitStack() as stack:
        yield request.param(stack, backends)


def seconds_to_open(place: Place) -> float:
    began = time.monotonic()
    with place.open("interval=30") as client:
        client.until_body(b"retry: ")
    return time.monotonic() - began


def test_a_stream_opens_before_there_is_an_event(place: Place) -> None:
    # It may take the start of a script, with all that it imports.
    assert mostly_below(2, lambda: seconds_to_open(place))


def test_events_arrive_one_by_one_each_within_100_ms(place: Place) -> None:
    late = []
    with place.open("interval=0.15") as client:
        for number in range(1, 7):
            *_, event = client.wait(number)
            late.append(time.monotonic() - json.loads(event.data)["sent"])
        assert client.headers.get("Content-Encoding", "") == place.coding
    print("late by", ", ".join(f"{one * 1000:.1f}" for one in late), "ms")
    # Two that came together would be seen: the first of them would be 150 ms late, and that is
    # every second one.  A busy machine may be late once or twice.
    assert sum(one < 0.1 for one in late) >= 4


def test_a_disconnect_ends_the_source(place: Place) -> None:
    assert place.heartbeats <= 2
    # A server that polls, and the timer of a script, may take a part of a heartbeat to see it.
    bound = place.heartbeats * HEARTBEAT + HEARTBEAT / 2 if place.heartbeats else 0.1
    names = [f"leave-{next(numbers)}" for _ in range(3)]
    left = {}
    with ExitStack() as stack:
        clients = [stack.enter_context(place.open(f"silent=1&name={name}")) for name in names]
        for client in clients:
            client.wait(1)
        for name, client in zip(names, clients, strict=True):
            left[name] = time.monotonic()
            client.close()
    took = []
    for name in names:
        closed = place.folder / f"{name}.closed"
        until(closed.exists, 10, "the source to end")
        took.append(float(closed.read_text()) - left[name])
    print("ended", ", ".join(f"{one * 1000:.0f}" for one in took), "ms after the client left")
    assert sum(one < bound for one in took) >= 2


def test_the_clients_headers_arrive(place: Place) -> None:
    last = str(int(time.monotonic() / 0.05) - 3)
    headers = {"Authorization": "Bearer token"}
    if place.guards:
        headers |= {"SCRIPT_NAME": "/evil", "PATH_INFO": "/evil"}
    query = "interval=0.05"
    if place.last_id_by_query:
        query += f"&last_event_id={last}"
    else:
        headers["Last-Event-ID"] = last
    with place.open(query, headers=headers) as client:
        first = client.wait(1)[0]
    about = json.loads(first.data)
    assert first.id == str(int(last) + 1)
    assert about["last"] == last
    assert about["authorization"] == ("Bearer token" if place.passes_authorization else None)
    assert about["script_name"] in (place.prefix, f"{place.prefix}/cgi-bin/stream")
    assert about["path"] in ("/stream", "")
    assert about["scheme"] == place.url.partition(":")[0]


def test_a_reload_of_the_server_loses_nothing_for_a_client_that_reconnects(place: Place) -> None:
    if place.server is None or place.reload is None:
        pytest.skip("this server has no reload")
    with place.open("interval=0.05") as client:
        client.wait(3)
        old = set(place.server.children())
        place.server.process.send_signal(place.reload)
        # The old stream is cut, or it is let live on; then the client leaves by itself.
        patience = time.monotonic() + 1
        while not client.ended and time.monotonic() < patience:
            client.read(0.2)
        print("cut" if client.ended else "lives on")
        seen = [int(event.id) for event in client.events]
    # A browser, too, tries until the server is back.  The first that answers may be the old one,
    # and a worker of gunicorn that is told to end as it begins does not hear it.
    before, renewed, deadline = len(seen), False, time.monotonic() + 30
    while len(seen) < before + 5 or not renewed:
        assert time.monotonic() < deadline, f"the old workers stay: {place.server.log}"
        renewed = not old & set(place.server.children())
        with until(partial(connected, place, seen[-1]), 10, "the server to answer") as client:
            while len(client.events) < 5 and client.read():
                pass
            seen += [int(event.id) for event in client.events]
    assert seen == list(range(seen[0], seen[0] + len(seen)))


def connected(place: Place, last: int) -> Any:
    """Come back, or None if that failed."""
    try:
        client = place.open("interval=0.05", headers={"Last-Event-ID": str(last)})
    except OSError:
        return None
    with ExitStack() as stack:
        stack.push(client)
        try:
            client.wait(1)
        except AssertionError:
            return None
        stack.pop_all()
    return client
