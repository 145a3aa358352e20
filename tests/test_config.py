"""``ssekit config``: what it prints is what the servers take, and what it refuses.

How streams do behind the printed configurations is shown in ``tests/test_ways.py``.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ssekit.cli import main
from ssekit.config import Refused, Site, Unit, apache, lighttpd, nginx, systemd
from tests import proxies
from tests.apps.ways import HEARTBEAT
from tests.clients import Client
from tests.components import need
from tests.ports import free_port
from tests.servers import ROOT, running
from tests.waiting import until

UPSTREAM = "127.0.0.1:8000"


def printed(arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["config", *arguments.split()]) == 0
    return capsys.readouterr().out


def test_the_nginx_file_of_the_repository_is_what_the_command_prints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert printed("nginx", capsys=capsys) == (ROOT / "nginx" / "ssekit.conf").read_text()


def test_every_option_reaches_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(
        "nginx --name example.org --listen 127.0.0.1:8443 --upstream unix:/run/s.sock "
        "--prefix /live/ --certificate /c.pem --key /k.pem --cgi /scripts "
        "--fcgiwrap 127.0.0.1:9000",
        capsys=capsys,
    )
    for line in (
        "listen 127.0.0.1:8443 ssl http2;",
        "server_name example.org;",
        "server unix:/run/s.sock;",
        "location /live/ {",
        "proxy_set_header SCRIPT_NAME /live;",
        "ssl_certificate /c.pem;",
        "ssl_certificate_key /k.pem;",
        "fastcgi_pass 127.0.0.1:9000;",
        "fastcgi_param SCRIPT_FILENAME /scripts/$script;",
    ):
        assert line in text
    unit = printed(
        "systemd shop:app --folder /srv/shop --bind unix:/run/shop/s.sock "
        "--user shop --gunicorn /usr/bin/gunicorn --workers 3",
        capsys=capsys,
    )
    assert (
        "ExecStart=/usr/bin/gunicorn -k gevent --workers 3 --bind unix:/run/shop/s.sock shop:app"
        in unit
    )
    assert "User=shop\nWorkingDirectory=/srv/shop\n" in unit
    assert "RuntimeDirectory=shop\n" in unit


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
def test_no_value_can_say_anything_else_to_a_server(value: str) -> None:
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
def test_the_server_takes_the_text_whatever_the_options(kind: str) -> None:
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


def test_systemd_takes_the_unit_and_its_command_serves(tmp_path: Path) -> None:
    port = free_port()
    unit = systemd(
        Unit(
            target="tests.apps.ways:app",
            folder=str(ROOT),
            bind=f"127.0.0.1:{port}",
            user="www-data",
            gunicorn=str(Path(sys.executable).with_name("gunicorn")),
        )
    )
    if shutil.which("systemd-analyze"):
        file = tmp_path / "ssekit.service"
        file.write_text(unit)
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", file],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "ssekit.service" not in done.stderr
    (command,) = [
        line.partition("=")[2] for line in unit.splitlines() if line.startswith("ExecStart=")
    ]
    with (
        running(shlex.split(command), port, env={"SSEKIT_TEST_FOLDER": str(tmp_path)}) as server,
        Client(f"{server.url}/stream") as client,
    ):
        assert client.wait(1)


def test_four_that_left_do_not_keep_a_fifth_waiting_behind_fcgiwrap() -> None:
    with proxies.open_folder() as folder, proxies.fcgiwrap(folder, children=4) as socket:
        port = free_port()
        site = Site(listen=f"127.0.0.1:{port}", cgi=str(proxies.scripts(folder)), fcgiwrap=socket)
        with proxies.nginx(nginx(site), port, folder) as server:
            url = f"{server.url}/cgi-bin/stream"
            for number in range(4):
                with Client(f"{url}?silent=1&name=quiet-{number}") as client:
                    client.wait(1)
            began = time.monotonic()
            with Client(url) as fifth:
                fifth.wait(1)
            waited = time.monotonic() - began
            print(f"the fifth waited {waited * 1000:.0f} ms")
            # The first event comes after 0.1 s; and the start of Python is in it.
            assert waited < 2 * HEARTBEAT
            for number in range(4):
                until((folder / f"quiet-{number}.closed").exists)


def test_the_clock_script_streams_behind_nginx_and_fcgiwrap_from_the_checkout() -> None:
    # As the user who runs the tests, because the checkout may be nobody else's to read.
    with proxies.open_folder() as folder, proxies.fcgiwrap(folder, user=None) as socket:
        port = free_port()
        site = Site(
            listen=f"127.0.0.1:{port}",
            cgi=str(ROOT / "scripts" / "cgi-bin"),
            fcgiwrap=socket,
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
