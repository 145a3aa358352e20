"""Streams returned from Django's views: taken over, left alone, and no database connection held."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from urllib.parse import quote
from urllib.request import urlopen

import django
import psycopg
import pytest

from ssekit import Hub
from tests.clients import Client
from tests.commands import program
from tests.ports import free_port
from tests.postgres_server import PostgresServer
from tests.servers import ROOT, Server, gunicorn, running
from tests.waiting import until

APP = "tests.apps.django_site.wsgi:app"
IN_FRONT = {
    "nothing else": "",
    "GZip": "django.middleware.gzip.GZipMiddleware",
    "ConditionalGet": "django.middleware.http.ConditionalGetMiddleware",
    "Locale": "django.middleware.locale.LocaleMiddleware",
    "WhiteNoise": "whitenoise.middleware.WhiteNoiseMiddleware",
    "debug-toolbar": "debug_toolbar.middleware.DebugToolbarMiddleware",
}


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer("max_connections=100") as server:
        yield server


@pytest.fixture(scope="module")
def database(postgres: PostgresServer) -> str:
    """The URL of a database with the project's tables."""
    url = postgres.new_database()
    manage("migrate", DATABASE=url)
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE written (one integer)")
    return url


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The environment of a project with a sqlite database."""
    environ = {"FILE": f"{tmp_path_factory.mktemp('site')}/site.sqlite"}
    manage("migrate", **environ)
    return environ


@pytest.fixture(scope="module")
def plain(site: Mapping[str, str]) -> Iterator[Server]:
    """A server of the project as it is."""
    with gunicorn(APP, env=site) as server:
        yield server


def manage(*command: str, **environ: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "django", *command, "--settings=tests.apps.django_site.settings"],
        cwd=ROOT,
        env={**os.environ, **environ},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def get(server: Server, path: str) -> str:
    with urlopen(server.url + path, timeout=10) as answer:
        return str(answer.read().decode())


def taken(server: Server) -> int:
    return int(get(server, "/inside"))


def in_use(url: str) -> int:
    """How many connections others hold to this database."""
    with psycopg.connect(url) as connection:
        (found,) = connection.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid != pg_backend_pid()"
        ).fetchone() or (0,)
        return int(found)


@pytest.mark.parametrize("name", IN_FRONT)
def test_a_stream_is_taken_over_whatever_middleware_is_there(
    name: str, site: Mapping[str, str]
) -> None:
    apps = {"debug-toolbar": "debug_toolbar"}.get(name, "")
    env = {**site, "MIDDLEWARE": IN_FRONT[name], "APPS": apps, "DEBUG": "1" if apps else ""}
    with gunicorn(APP, env=env) as server, ExitStack() as stack:
        headers = {"Accept-Encoding": "gzip, br"}
        clients = [
            stack.enter_context(Client(f"{server.url}/events", headers=headers)) for _ in range(20)
        ]
        for client in clients:
            assert client.wait(1)[0].event == "stream-open"
            assert client.headers["Content-Type"] == "text/event-stream; charset=utf-8"
            assert client.headers["X-Accel-Buffering"] == "no"
            assert client.headers["X-Frame-Options"] == "DENY"
            assert client.headers["Set-Cookie"].startswith("sessionid=")
            assert "Cookie" in client.headers["Vary"]
            assert "Content-Encoding" not in client.headers
        assert until(lambda: taken(server) == 20)
        get(server, "/publish?data=it+works")
        for client in clients:
            assert client.wait(2)[1].data == "it works"


def test_a_decorated_view_may_return_a_stream_or_another_response(plain: Server) -> None:
    with Client(f"{plain.url}/decorated?ok") as client:
        assert client.wait(1)[0].event == "stream-open"
    with Client(f"{plain.url}/decorated") as client:
        assert client.status == 403


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [("HEAD", {}, 200), ("POST", {}, 405), ("GET", {"Accept": "text/html"}, 406)],
)
def test_what_opens_no_stream_gets_the_streams_own_answer(
    method: str, headers: Mapping[str, str], status: int, plain: Server
) -> None:
    with Client(f"{plain.url}/decorated?ok", method=method, headers=headers) as client:
        assert client.status == status
        assert client.headers["X-Frame-Options"] == "DENY"
        if method == "POST":
            assert client.headers["Allow"] == "GET, HEAD, OPTIONS"


SETTINGS = {
    "connections that are closed": {},
    "kept connections": {"CONN_MAX_AGE": "None"},
    "atomic requests": {"ATOMIC": "1", "CONN_MAX_AGE": "None"},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_open_streams_hold_no_database_connection(name: str, database: str) -> None:
    with gunicorn(APP, env={"DATABASE": database, **SETTINGS[name]}) as server:
        for path in ("/events", "/ticking"):  # taken over, and iterated
            with opened(server, path):
                assert until(lambda: in_use(database) == 0), in_use(database)


@contextmanager
def opened(server: Server, path: str, count: int = 50) -> Iterator[list[Client]]:
    """Open so many streams at once."""
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(server.url + path)) for _ in range(count)]
        for client in clients:
            client.wait(1, 30)
        yield clients


def test_open_streams_hold_no_database_connection_under_threads(database: str) -> None:
    env = {"DATABASE": database, "CONN_MAX_AGE": "None"}
    with gunicorn(APP, "--threads", "60", worker="gthread", env=env) as server:
        with opened(server, "/events"):
            assert until(lambda: in_use(database) == 0), in_use(database)


@pytest.mark.skipif(django.VERSION < (5, 1), reason="Django has pools since 5.1")
def test_streams_beyond_the_size_of_a_pool_open_and_hold_none_of_it(database: str) -> None:
    with gunicorn(APP, env={"DATABASE": database, "POOL": "1"}) as server:
        with opened(server, "/ticking"):
            assert in_use(database) <= 4
        with opened(server, "/events", 200) as clients:
            assert {client.events[0].event for client in clients} == {"stream-open"}
            assert in_use(database) <= 4


def test_what_the_view_has_written_is_committed(database: str) -> None:
    with gunicorn(APP, env={"DATABASE": database, "ATOMIC": "1"}) as server, ExitStack() as stack:
        for _ in range(10):
            client = stack.enter_context(Client(f"{server.url}/writing"))
            assert client.wait(1)[0].event == "stream-open"
        with psycopg.connect(database) as connection:
            assert connection.execute("SELECT count(*) FROM written").fetchone() == (10,)


def test_a_process_killed_after_its_commit_loses_no_event_of_a_log_in_the_same_database(
    postgres: PostgresServer, database: str
) -> None:
    for url, expected in ((database, ["committed"]), (postgres.new_database(), [])):
        done = subprocess.run(
            program("django_killed_after_commit"),
            cwd=ROOT,
            env={**os.environ, "APPS": "ssekit.django", "DATABASE": database, "HUB": url},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        with Hub(url) as hub:
            assert [event.data for event in hub.history("news")] == expected


def log_of(url: str) -> str | None:
    """The mark of the log in a database."""
    with psycopg.connect(url) as connection:
        (mark,) = connection.execute(
            "SELECT obj_description(to_regclass('ssekit.tip'), 'pg_class')"
        ).fetchone() or (None,)
        return None if mark is None else str(mark)


def test_a_migration_creates_the_log_in_its_own_database_alone(postgres: PostgresServer) -> None:
    here, elsewhere = postgres.new_database(), postgres.new_database()
    environ = {"APPS": "ssekit.django", "DATABASE": here}
    assert "(no migrations)" in manage("showmigrations", "ssekit", **environ, HUB="memory:")
    manage("migrate", "ssekit", **environ, HUB=elsewhere)
    assert log_of(here) is None
    assert log_of(elsewhere) is None
    manage("migrate", "ssekit", "zero", **environ, HUB=elsewhere)

    with psycopg.connect(here) as connection:  # whose user may create nothing
        connection.execute("CREATE ROLE web LOGIN")
    hub = here.replace("ssekit@", "web@")
    assert "CREATE SCHEMA" in manage("sqlmigrate", "ssekit", "log_1", **environ, HUB=hub)
    assert log_of(here) is None
    manage("migrate", "ssekit", **environ, HUB=hub)
    with Hub(hub) as opened:
        opened.publish("news", "it works")
    assert "No changes" in manage("makemigrations", "--check", **environ, HUB=hub)
    manage("migrate", "ssekit", "zero", **environ, HUB=here)
    assert log_of(here) is None


def test_a_migration_leaves_a_log_that_is_there_as_it_is(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    log = f"{url}?stream=log"  # PostgreSQL makes tables in a schema that is called as their user
    with Hub(log) as hub:
        hub.publish("news", "before")
        manage("migrate", "ssekit", APPS="ssekit.django", DATABASE=url, HUB=log)
        assert [event.data for event in hub.history("news")] == ["before"]


def test_under_asgi_a_stream_is_refused_with_the_reason(site: Mapping[str, str]) -> None:
    done = subprocess.run(
        program("django_over_asgi", "/events", "/users/events"),
        cwd=ROOT,
        env={**os.environ, **site, "APPS": "ssekit.django", "HUB": "memory:"},
        capture_output=True,
        text=True,
        check=True,
    )
    refusals = done.stdout.splitlines()
    assert len(refusals) == 2
    for line in refusals:
        assert line.startswith("ImproperlyConfigured: ssekit streams over WSGI")


def test_djangos_own_test_client_reads_a_stream(site: Mapping[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.apps.programs.django_test_client"],
        cwd=ROOT,
        env={**os.environ, **site},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["200", "stream-open", "it works", "inside a test: open"]


def test_ssekits_test_client_reads_a_project(site: Mapping[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.apps.programs.django_connect"],
        cwd=ROOT,
        env={**os.environ, **site},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["stream-open", "it works"]


def test_runserver_streams_reloads_and_ends(site: Mapping[str, str]) -> None:
    port = free_port()
    command = [sys.executable, "-m", "django", "runserver", str(port)]
    env = {**site, "DJANGO_SETTINGS_MODULE": "tests.apps.django_site.settings", "DEBUG": "1"}
    touched = ROOT / "tests" / "apps" / "django_site" / "urls.py"
    with running(command, port, env=env) as server:
        with Client(f"{server.url}/events") as client:
            assert client.wait(1)[0].event == "stream-open"
            get(server, f"/publish?data={quote('it works')}")
            assert client.wait(2)[1].data == "it works"

            def reloaded() -> bool:
                os.utime(touched)  # again and again: at first the reloader only notes what is there
                client.read(0.3)
                return client.ended

            until(reloaded, 15)
        assert until(lambda: answers(server), 20)
        with Client(f"{server.url}/events") as client:
            assert client.wait(1)[0].event == "stream-open"
            os.kill(server.process.pid, signal.SIGINT)
            client.until_end(10)


def answers(server: Server) -> bool:
    try:
        get(server, "/inside")
    except OSError:
        return False
    return True
