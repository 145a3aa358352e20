"""``ssekit config``: what it prints is what the servers take, and what it refuses.

How streams do behind the printed configurations is shown in ``tests/test_ways.py``.
"""

from __future__ import annotations

import json
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from itertools import count, islice
from pathlib import Path

import pytest

from ssekit.cli.config import Refused, Site, Unit, apache, lighttpd, nginx, systemd
from ssekit.cli.main import main
from tests import proxies
from tests.apps.ways import HEARTBEAT
from tests.clients import Client
from tests.components import need
from tests.ports import free_port
from tests.servers import ROOT, running
from tests.waiting import mostly_below, until

UPSTREAM = "127.0.0.1:8000"


def printed(arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["config", *arguments.split()]) == 0
    return capsys.readouterr().out


def test_the_nginx_file_of_the_repository_is_what_the_command_prints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert printed("nginx", capsys=capsys) == (ROOT / "nginx" / "ssekit.conf").read_text()


def test_the_nginx_file_says_what_a_429_does_to_a_stream(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = printed("nginx", capsys=capsys).partition("limit_conn_status")[0].splitlines()
    before = " ".join(line.strip(" #") for line in lines[-9:])
    assert "429" in before
    assert "ends an EventSource permanently" in before
    assert "max_per_address" in before


SITE = (
    "--name example.org --listen 127.0.0.1:8443 --upstream unix:/run/s.sock --prefix /live/ "
    "--certificate /c.pem --key /k.pem --cgi /scripts"
)
LINES = {
    f"nginx {SITE} --fcgiwrap 127.0.0.1:9000": [
        "listen 127.0.0.1:8443 ssl http2;",
        "server_name example.org;",
        "server unix:/run/s.sock;",
        "location /live/ {",
        "proxy_set_header SCRIPT_NAME /live;",
        "ssl_certificate /c.pem;",
        "ssl_certificate_key /k.pem;",
        "fastcgi_pass 127.0.0.1:9000;",
        "fastcgi_param SCRIPT_FILENAME /scripts/$script;",
    ],
    f"apache {SITE}": [
        "Listen 127.0.0.1:8443",
        "<VirtualHost 127.0.0.1:8443>",
        "ServerName example.org",
        "Protocols h2 http/1.1",
        'ProxyPass "unix:/run/s.sock|http://ssekit/live/" disablereuse=on timeout=60',
        "RequestHeader set SCRIPT_NAME /live",
        "SSLCertificateFile /c.pem",
        "SSLCertificateKeyFile /k.pem",
        'ScriptAlias "/live/cgi-bin/" "/scripts/"',
    ],
    f"lighttpd {SITE}": [
        "server.port = 8443",
        'server.bind = "127.0.0.1"',
        'server.name = "example.org"',
        'proxy.server = ( "" => (( "socket" => "/run/s.sock" )) )',
        '"SCRIPT_NAME" => "/live"',
        'ssl.pemfile = "/c.pem"',
        'ssl.privkey = "/k.pem"',
        'alias.url = ( "/live/cgi-bin/" => "/scripts/" )',
    ],
    "nginx --certificate /c.pem --key /k.pem --no-http2": ["listen 443 ssl;"],
    "lighttpd --certificate /c.pem --key /k.pem --no-http2": ['"server.h2proto" => "disable"'],
    "fcgiwrap --fcgiwrap unix:/run/f.sock": [
        "fastcgi_pass unix:/run/f.sock;",
        "fcgiwrap -f -c 64 -s unix:/run/f.sock",
        "DAEMON_OPTS=-fc64",
        "fastcgi_param SCRIPT_FILENAME /usr/lib/cgi-bin/$script;",
    ],
    "systemd shop:app --folder /srv/shop --bind unix:/run/shop/s.sock --user shop "
    "--gunicorn /usr/bin/gunicorn --workers 3": [
        "ExecStart=/usr/bin/gunicorn -k gevent --workers 3 --bind unix:/run/shop/s.sock shop:app\n",
        "User=shop\nWorkingDirectory=/srv/shop\n",
        "RuntimeDirectory=shop\n",
    ],
}


@pytest.mark.parametrize("arguments", LINES, ids=lambda arguments: arguments.split()[0])
def test_every_option_reaches_the_text(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(arguments, capsys=capsys)
    for line in LINES[arguments]:
        assert line in text


@pytest.mark.parametrize(
    "arguments",
    [
        "nginx --name a;b",
        "nginx --upstream 127.0.0.1",
        "nginx --upstream 127.0.0.1:99999",
        "nginx --upstream unix:relative",
        "nginx --listen x:80",
        "nginx --listen 0",
        "nginx --prefix live",
        "nginx --prefix //",
        "nginx --certificate /c.pem",
        "apache --cgi relative",
        "fcgiwrap --fcgiwrap somewhere",
        "systemd wsgi/app",
        "systemd --user Root",
        "systemd --workers 0",
        "systemd --folder /srv/%h",
    ],
)
def test_an_option_that_a_server_would_misread_is_refused(
    arguments: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["config", *arguments.split()])
    assert ended.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "ssekit config: error: " in output.err


@pytest.mark.parametrize(
    "value", ["/a b", '/a"', "/a'", "/a;", "/a{", "/a\n", "/a$b", "/a\\", "/#"]
)
def test_no_value_can_inject_anything_into_a_configuration(value: str) -> None:
    for option in ("cgi", "prefix", "certificate", "upstream", "name", "fcgiwrap", "listen"):
        with pytest.raises(Refused):
            Site(**{"upstream": UPSTREAM, "key": "/k", option: value})
    for option in ("target", "folder", "bind", "user", "gunicorn"):
        with pytest.raises(Refused):
            Unit(**{option: value})


def test_a_site_that_serves_nothing_is_refused() -> None:
    with pytest.raises(Refused, match="--upstream or --cgi"):
        Site()


def sites(folder: Path) -> list[Site]:
    """Options in combinations that ``tests/test_ways.py`` does not run."""
    scripts = folder / "cgi-bin"
    scripts.mkdir()
    tls = proxies.certificate_files(folder)
    port = free_port()
    return [
        Site(upstream="[::1]:8000", listen=f"[::1]:{port}", name="example.org"),
        Site(cgi=str(scripts), prefix="/a.b+c/", listen=f"127.0.0.1:{port}", **tls),
        Site(upstream=UPSTREAM, listen=str(port), http2=False, **tls),
        Site(upstream=UPSTREAM, cgi=str(scripts), prefix="/live/", listen=f"127.0.0.1:{port}"),
    ]


@pytest.mark.parametrize("kind", ["nginx", "apache", "lighttpd"])
def test_the_server_accepts_the_text_with_any_options(kind: str) -> None:
    program = need({"apache": "apache2"}.get(kind, kind))
    with proxies.open_folder() as folder:
        for site in sites(folder):
            if kind == "nginx":
                proxies.nginx_files(nginx(site), folder)
                command = [program, "-t", "-e", "stderr", "-c", str(folder / "nginx.conf")]
            elif kind == "apache":
                modules = ["proxy", "proxy_http", "cgid", "alias", "socache_shmcb", "ssl", "http2"]
                proxies.apache_files(apache(site), folder, *modules)
                command = [program, "-t", "-f", str(folder / "apache.conf")]
            else:
                (folder / "lighttpd.conf").write_text(lighttpd(site))
                command = [program, "-tt", "-f", str(folder / "lighttpd.conf")]
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, user=proxies.NOBODY
            )
            assert done.returncode == 0, f"{site}\n{done.stderr}"
            # Not even a warning, except of what a later nginx says about http2 in "listen".
            said = done.stderr.replace("Syntax OK", "")
            assert (
                "warn" not in said.lower() or '"listen ... http2" directive is deprecated' in said
            )


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    for bind in (UPSTREAM, "unix:/run/ssekit/gunicorn.sock"):
        file = tmp_path / "ssekit.service"
        file.write_text(unit_here(bind))
        command = ["systemd-analyze", "verify", "--man=no", file]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "ssekit.service" not in done.stderr


def test_systemd_calls_the_unit_well_confined(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    file = tmp_path / "ssekit.service"
    file.write_text(unit_here("unix:/run/ssekit/gunicorn.sock"))
    # In tenths: from 0, nothing is left to take away, to 10.
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=25", file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr


def test_the_command_of_the_unit_serves_and_tells_systemd_when_it_is_ready(tmp_path: Path) -> None:
    port = free_port()
    unit = unit_here(f"127.0.0.1:{port}")
    assert "Type=notify\n" in unit
    (command,) = [
        line.partition("=")[2] for line in unit.splitlines() if line.startswith("ExecStart=")
    ]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd_listens:
        systemd_listens.bind(str(tmp_path / "notify"))
        systemd_listens.settimeout(20)
        environment = {
            "SSEKIT_TEST_FOLDER": str(tmp_path),
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
        }
        with running(shlex.split(command), port, env=environment) as server:
            assert b"READY=1" in systemd_listens.recv(4096)
            with Client(f"{server.url}/stream") as client:
                assert client.wait(1)


def unit_here(bind: str) -> str:
    """A unit with this checkout's application and this environment's gunicorn."""
    return systemd(
        Unit(
            target="tests.apps.ways:app",
            folder=str(ROOT),
            bind=bind,
            user="www-data",
            gunicorn=str(Path(sys.executable).with_name("gunicorn")),
        )
    )


def test_four_disconnected_clients_delay_a_fifth_by_less_than_a_second_under_fcgiwrap() -> None:
    with proxies.open_folder() as folder, proxies.fcgiwrap(folder, children=4) as where:
        port = free_port()
        site = Site(listen=f"127.0.0.1:{port}", cgi=str(proxies.scripts(folder)), fcgiwrap=where)
        with proxies.nginx(nginx(site), port, folder) as server:
            url = f"{server.url}/cgi-bin/stream"
            names = (f"quiet-{number}" for number in count())
            # It may be late once, on a machine that is busy with something else.
            assert mostly_below(1, lambda: seconds_of_a_fifth(url, folder, islice(names, 4)))


def seconds_of_a_fifth(url: str, folder: Path, names: Iterable[str]) -> float:
    """How long it takes to the first event where four have just left all of the children."""
    with ExitStack() as stack:
        four = {name: stack.enter_context(Client(f"{url}?silent=1&name={name}")) for name in names}
        for client in four.values():
            client.wait(1)
        assert not any((folder / f"{name}.closed").exists() for name in four)
    began = time.monotonic()
    with Client(url) as fifth:
        fifth.wait(1)
    waited = time.monotonic() - began
    for name in four:
        until((folder / f"{name}.closed").exists)
    # 0.1 s of it are the source's own, and the start of Python is in it.
    print(f"the fifth waited {waited * 1000:.0f} ms, with a heartbeat of {HEARTBEAT} s")
    return waited


def test_the_clock_script_streams_behind_nginx_and_fcgiwrap_from_the_checkout() -> None:
    # As the user who runs the tests, because the checkout may be nobody else's to read.
    with proxies.open_folder() as folder, proxies.fcgiwrap(folder, user=None) as where:
        port = free_port()
        site = Site(
            listen=f"127.0.0.1:{port}",
            cgi=str(ROOT / "scripts" / "cgi-bin"),
            fcgiwrap=where,
            prefix="/seeds/",
        )
        with proxies.nginx(nginx(site), port, folder) as server:
            scripts = f"{server.url}/seeds/cgi-bin"
            with Client(f"{scripts}/clock.py?interval=0.2") as client:
                assert client.headers["Content-Type"] == "text/event-stream; charset=utf-8"
                for event in client.wait(3):
                    assert abs(json.loads(event.data)["id"] - time.time()) < 5
            with Client(f"{scripts}/absent.py") as missing:
                assert missing.status in (403, 404)
            with Client(f"{scripts}/../../setup.cfg") as outside:
                assert outside.status == 404
