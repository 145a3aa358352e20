"""The command line as processes: what it prints, how it ends, and what it says of mistakes."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import ssekit
from ssekit.cli import serve
from ssekit.cli.main import COMMANDS, main
from tests import commands
from tests.clients import Client
from tests.commands import ran
from tests.ports import free_port
from tests.scripted import STREAM, Scripted, hold
from tests.servers import ROOT
from tests.waiting import until

EVENTS = b':\ndata: one\nid: 1\n\nevent: tick\ndata: {"n":\ndata: 2}\nid: 2\n\n'
TIMER_APPLICATION = "from ssekit import Stream, every\napp = Stream(lambda: every(9))\n"
TIMER = "from ssekit import every\nfrom ssekit.script import send\nfor n in every(9): send(n)\n"


def test_help_names_every_command_and_exit_code() -> None:
    done = ran("--help")
    assert done.returncode == 0
    for word in ("serve", "publish", "listen", "doctor", "config", "130"):
        assert word in done.stdout
    assert ran().stderr == done.stdout


def test_help_needs_nothing_installed() -> None:
    # -I -S: no site-packages at all.
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from ssekit.cli.main import main"
    code += "; main()"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, "--version"], capture_output=True, check=True
    )
    assert done.stdout.decode() == f"ssekit {ssekit.__version__}\n"


@pytest.mark.parametrize("command", list(COMMANDS))
def test_each_command_has_examples(command: str) -> None:
    done = ran(command, "--help")
    assert done.returncode == 0
    assert f"\n  ssekit {command} " in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "usage: ssekit COMMAND"),
        (("listne",), "unknown command 'listne'"),
        (("listen",), "URL|CHANNEL"),
        (("listen", "http://127.0.0.1/", "news"), "either one URL or"),
        (("listen", "http://127.0.0.1/", "--url", "memory:"), "--url is the hub"),
        (("listen", "http://127.0.0.1/", "--count", "0"), "--count needs"),
        (("listen", "http://127.0.0.1/", "--header", "Cookie"), "'NAME: VALUE'"),
        (("listen", "http://127.0.0.1/", "--header", "A: b\r\nC: d"), "'NAME: VALUE'"),
        (("listen", "http://127.0.0.1/", "--header", "Ü: b"), "'NAME: VALUE'"),
        (("listen", "http://127.0.0.1/", "--header", "A b: c"), "'NAME: VALUE'"),
        (("listen", "http://127.0.0.1/", "--timeout", "0"), "--timeout needs"),
        (("listen", "http://127.0.0.1/", "--json", "--raw"), "not allowed with"),
        (("listen", "news", "--header", "A: b"), "are for a URL"),
        (
            ("serve", "missing.py"),
            "'missing.py' is not a script, a folder, or",
        ),
        (("serve", "os:getcwd", "--bind", "8000"), "--bind needs HOST:PORT"),
        (("serve", "os:getcwd", "--bind", ":8000"), "--bind needs HOST:PORT"),
        (("serve", "os:getcwd", "--bind", "127.0.0.1:99999"), "--bind needs HOST:PORT"),
        (("serve", "os:getcwd", "--workers", "0"), "--workers needs"),
        (("serve", "os:getcwd", "--origin", "https://a.example"), "--origin is for scripts"),
        (("serve", "scripts/cgi-bin", "--origin", "a.example"), "--origin: 'a.example' is not an"),
        (("doctor", "ftp://127.0.0.1/"), "ftp://127.0.0.1/"),
        (("doctor", "http://127.0.0.1/", "--seconds", "0"), "--seconds needs"),
        (("config",), "SERVER"),
        (("config", "nginx", "--listen", "80; evil"), "80; evil"),
    ],
)
def test_wrong_usage_is_explained_with_exit_code_2(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(arguments)
    except SystemExit as left:
        code = left.code  # type: ignore[assignment]
    assert code == 2
    assert words in capsys.readouterr().err


def test_config_prints_a_configuration() -> None:
    done = ran("config", "nginx", "--name", "example.org")
    assert (done.returncode, done.stderr) == (0, "")
    assert "server_name example.org;" in done.stdout


def test_doctor_fails_with_its_findings() -> None:
    done = ran("doctor", f"http://127.0.0.1:{free_port()}/", "--seconds", "5")
    assert done.returncode == 1
    assert "unreachable" in done.stdout


# listen URL


def test_listen_prints_text_by_default() -> None:
    with Scripted([hold(STREAM + EVENTS)]) as server:
        done = ran("listen", server.url, "--count", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == 'one\ntick: {"n":\n2}\n'


def test_listen_prints_a_line_of_json_for_each_event() -> None:
    with Scripted([hold(STREAM + EVENTS)]) as server:
        done = ran("listen", server.url, "--count", "2", "--json")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"event": "message", "data": "one", "id": "1"},
        {"event": "tick", "data": '{"n":\n2}', "id": "2"},
    ]


def test_listen_prints_the_stream_itself() -> None:
    with Scripted([hold(STREAM + EVENTS)]) as server:
        done = ran("listen", server.url, "--count", "2", "--raw")
    assert done.stdout.encode() == EVENTS


def test_listen_writes_utf_8_in_any_locale() -> None:
    with Scripted([hold(STREAM + "data: \u6b22\u8fce\n\n".encode())]) as server:
        done = ran("listen", server.url, "--count", "1", env={"PYTHONIOENCODING": "ascii"})
    assert done.stdout == "\u6b22\u8fce\n"


def test_listen_shows_each_event_at_once_resumes_and_ends_at_204() -> None:
    again = hold(STREAM + b"retry: 0\ndata: two\nid: 2\n\n")
    gone = b"HTTP/1.1 204 No Content\r\n\r\n"
    first = STREAM + b"retry: 0\ndata: one\nid: 1\n\n"
    with Scripted([first, again, gone]) as server:
        with commands.ssekit("listen", server.url) as command:
            assert command.line() == "one\n"
            assert command.line() == "two\n"
            server.cut()
            assert command.code() == 0
            assert command.errors().count("the stream ended; connecting again in 0.0 s") == 2
        assert [request.last_event_id for request in server.requests] == [None, "1", "2"]


def test_listen_sends_the_id_and_the_headers_asked_for() -> None:
    with Scripted([b"HTTP/1.1 204 No Content\r\n\r\n"]) as server:
        done = ran("listen", server.url, "--last-event-id", "7", "--header", "X-One: a b")
    assert done.returncode == 0
    assert server.requests[0].last_event_id == "7"
    assert server.requests[0].headers["X-One"] == "a b"


def test_listen_leaves_out_the_hubs_own_events() -> None:
    own = b"event: stream-open\ndata: {}\nid: 1-0\n\n"
    lost = b'event: stream-reset\ndata: {"reason": "history-lost"}\nid: 1-0\n\n'
    with Scripted([hold(STREAM + own + lost + b"data: x\n\n")]) as server:
        done = ran("listen", server.url, "--count", "1")
        assert done.stdout == "x\n"
        assert "events were missed" in done.stderr
        done = ran("listen", server.url, "--count", "1", "--json")
        assert len(done.stdout.splitlines()) == 3


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 404 Not \x1b[2JFound\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\n\r\n"],
)
def test_listen_fails_with_one_line_where_there_is_no_stream(answer: bytes) -> None:
    with Scripted([answer]) as server:
        done = ran("listen", server.url)
        assert server.url in done.stderr
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert "\x1b" not in done.stderr


def test_ctrl_c_ends_listen_quietly_with_130() -> None:
    with (
        Scripted([hold(STREAM + b"data: x\n\n")]) as server,
        commands.ssekit("listen", server.url) as command,
    ):
        assert command.line() == "x\n"
        command.interrupt()
        assert command.code() == 130
        assert command.errors() == ""


def test_listen_ends_when_its_output_is_closed_even_without_events() -> None:
    with (
        Scripted([hold(STREAM + b"data: x\n\n")]) as server,
        commands.ssekit("listen", server.url) as command,
    ):
        assert command.line() == "x\n"
        command.output.close()
        assert command.code(5) == 0
        assert command.errors() == ""


def test_listen_ends_when_its_output_is_closed_during_a_flood_of_events() -> None:
    def pour(_request: object, connection: socket.socket) -> None:
        connection.sendall(STREAM)
        while True:
            connection.sendall(b"data: x\n\n" * 1000)

    with Scripted([pour]) as server, commands.ssekit("listen", server.url) as command:
        assert command.line() == "x\n"
        command.output.close()
        assert command.code(5) == 0
        assert command.errors() == ""


def test_listen_writes_no_control_characters_to_a_terminal() -> None:
    stream = hold(STREAM + b"data: a\x1b[31mred\x1b[0m \x1b]0;title\x07\xc2\x9b\n\n")
    with Scripted([stream]) as server:
        command = f"{sys.executable} -m ssekit listen {server.url} --count 1"
        seen = subprocess.run(
            ["script", "--quiet", "--return", "--command", command, "/dev/null"],
            cwd=ROOT,
            capture_output=True,
            check=True,
            stdin=subprocess.DEVNULL,
        ).stdout
        assert seen == b"a\x1b[31mred\x1b[0m \\x1b]0;title\\x07\\x9b\r\n"
        piped = ran("listen", server.url, "--count", "1").stdout
        assert piped == "a\x1b[31mred\x1b[0m \x1b]0;title\x07\x9b\n"


def test_listen_without_httpx_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "httpx.py").write_text("raise ImportError('none', name='httpx')")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = ran("listen", "http://127.0.0.1/", cwd=tmp_path, env={"PYTHONPATH": path})
    assert done.returncode == 1
    assert done.stderr == "ssekit: ssekit.client needs httpx: pip install 'ssekit[client]'\n"


# serve


def served(line: str) -> str:
    found = re.search(r"http://127\.0\.0\.1:\d+/\S*", line)
    assert found, line
    return found[0]


def test_serve_serves_a_script(tmp_path: Path) -> None:
    (tmp_path / "it's.py").write_text(TIMER)
    with commands.ssekit(
        "serve", "it's.py", "--bind", "127.0.0.1:0", "--origin", "https://a.example", cwd=tmp_path
    ) as command:
        assert command.line().startswith(f"ssekit {ssekit.__version__} serves it's.py")
        url = served(command.line())
        with Client(url, headers={"Origin": "https://a.example"}) as client:
            assert client.wait(1)[0].data == "0"
            assert client.headers["Access-Control-Allow-Origin"] == "https://a.example"
            command.interrupt()
            assert client.until_end().rpartition(b"retry: ")[1]
        assert command.code() == 0


def test_serve_serves_the_scripts_of_a_folder_and_names_them(tmp_path: Path) -> None:
    (tmp_path / "clock.py").write_text(TIMER)
    (tmp_path / "_own.py").write_text(TIMER)
    with commands.ssekit("serve", str(tmp_path), "--bind", "127.0.0.1:0") as command:
        command.line()
        url = served(command.line())
        assert url.endswith("/clock.py")
        with Client(url) as client:
            assert client.wait(1)[0].data == "0"
        with Client(url.replace("clock", "_own")) as client:
            assert client.status == 404
        command.interrupt()
        assert command.code() == 0
        assert command.output.read() == b""


def test_serve_serves_an_application_of_the_current_folder(tmp_path: Path) -> None:
    code = "import os, ssekit\napp = ssekit.Stream(lambda: [os.getpid()])\n"
    (tmp_path / "mine.py").write_text(code)
    with commands.ssekit(
        "serve", "mine:app", "--bind", "127.0.0.1:0", "--workers", "2", cwd=tmp_path
    ) as command:
        command.line()
        url = served(command.line())
        workers = set()

        def both() -> bool:
            with Client(url) as client:
                workers.add(client.wait(1)[0].data)
            return len(workers) == 2

        until(both)  # gunicorn waits 30 s for a worker that is told to end while it starts
        command.process.terminate()
        assert command.code() == 0
        assert command.errors().count("Booting worker") == 2


def test_serve_has_room_for_all_clients_that_come_back_at_once() -> None:
    with serve._listener("127.0.0.1:0") as listener:
        info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
    # tcp(7): of a listening socket tcpi_sacked is the longest queue.
    most = int(Path("/proc/sys/net/core/somaxconn").read_text())
    assert struct.unpack_from("I", info, 28) == (min(16_384, most),)


def test_serve_serves_on_a_unix_socket(tmp_path: Path) -> None:
    (tmp_path / "clock.py").write_text(TIMER)
    path = tmp_path / "socket"
    with commands.ssekit("serve", "clock.py", "--bind", f"unix:{path}", cwd=tmp_path) as command:
        until(path.exists)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            until(lambda: not client.connect_ex(str(path)))
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.")
        command.interrupt()
        assert command.code() == 0


def test_serve_says_that_an_address_is_in_use(tmp_path: Path) -> None:
    (tmp_path / "clock.py").write_text(TIMER)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        done = ran("serve", str(tmp_path), "--bind", bind)
    assert done.returncode == 1
    assert (
        done.stderr
        == f"ssekit: cannot bind {bind}: Address already in use; name another with --bind\n"
    )


def test_serve_refuses_a_folder_without_scripts(tmp_path: Path) -> None:
    done = ran("serve", str(tmp_path))
    assert done.returncode == 1
    assert "has no scripts (*.py)" in done.stderr


def test_serve_says_that_there_is_no_such_module(tmp_path: Path) -> None:
    done = ran("serve", "wsgj:app", "--bind", "127.0.0.1:0", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr == "ssekit: cannot find the module wsgj of wsgj:app: it is not in the current "
        "folder, and it is not installed\n"
    )


def test_serve_binds_to_loopback_by_default(tmp_path: Path) -> None:
    (tmp_path / "clock.py").write_text(TIMER)
    with commands.ssekit("serve", str(tmp_path), "--bind", "0.0.0.0:0") as command:
        command.line()
        command.line()
        command.interrupt()
        command.code()
        assert "other machines can reach this address" in command.errors()
    done = ran("serve", "--help")
    assert "default: 127.0.0.1:8000" in done.stdout


def test_serve_without_gunicorn_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "clock.py").write_text(TIMER)
    code = (
        f"import sys; sys.path[:] = [{str(ROOT)!r}] + [p for p in sys.path if 'site-' not in p]; "
        f"from ssekit.cli.main import main; sys.exit(main(['serve', {str(tmp_path)!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={}
    )
    assert done.returncode == 1
    assert done.stderr == "ssekit: serve needs gunicorn: pip install 'ssekit[server]'\n"


@pytest.mark.parametrize(
    ("target", "text"), [("timer:app", TIMER_APPLICATION), ("timer.py", TIMER)]
)
def test_serve_writes_each_log_line_as_json(tmp_path: Path, target: str, text: str) -> None:
    (tmp_path / "timer.py").write_text(text)
    with commands.ssekit(
        "serve", target, "--bind", "127.0.0.1:0", "--log-json", cwd=tmp_path
    ) as command:
        command.line()
        url = served(command.line())
        headers = {"X-Request-ID": "r-1\u00e9", "traceparent": "00-abc-def-01"}
        with Client(url, headers=headers) as client:
            client.wait(1)
        command.interrupt()
        assert command.code() == 0
        lines = [json.loads(line) for line in command.errors().splitlines()]
    assert {"time", "level", "logger", "process", "message"} <= set.intersection(*map(set, lines))
    assert "gunicorn.error" in {line["logger"] for line in lines}
    (stream,) = [line for line in lines if line["logger"] == "ssekit.streams"]
    assert stream["path"] == (urlsplit(url).path or "/")
    assert stream["events"] >= 1
    assert stream["bytes"] > 0
    assert stream["ended"] == "client disconnected"
    assert stream["traceparent"] == "00-abc-def-01"
    assert stream["request_id"] == "r-1\u00e9"
    assert "traceparent=00-abc-def-01" in stream["message"]
