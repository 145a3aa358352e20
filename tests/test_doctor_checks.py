"""What the doctor does without a real server: judging what was seen, strangers that mean no good,
and the command."""

from __future__ import annotations

import ast
import gzip
import io
import json
import re
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest

from ssekit.cli.doctor import Plan, Progress, Seen, examine, judge
from ssekit.cli.doctor.checks import blame, path, untested
from ssekit.cli.doctor.exchange import CLOSED, CUT, ENDED, FULL, Arrival, Exchange, Headers
from ssekit.cli.doctor.http import Manner, ask
from ssekit.cli.doctor.seen import Measured
from ssekit.cli.main import main
from tests.commands import ssekit
from tests.servers import ROOT

URL = "http://127.0.0.1/events"
HEADERS = (
    ("Server", "nginx/1.22.1"),
    ("Content-Type", "text/event-stream"),
    ("Cache-Control", "no-cache"),
)


def event(number: int, at: float) -> Arrival:
    return Arrival(at, f"data: x\nid: {number}\n\n".encode())


def answer(*arrivals: Arrival, left_at: float = 40.0, **fields: object) -> Exchange:
    exchange = Exchange(URL, status=200, headers=HEADERS, head_at=0.01, left_at=left_at)
    return replace(exchange, arrivals=(Arrival(0.01, b"retry: 3000\n"), *arrivals), **fields)  # type: ignore[arg-type]


FINE = answer(*(event(number, number * 1.5) for number in range(1, 25)))
HEALTHY = Seen(URL, look=FINE, long=FINE)


def found(seen: Seen) -> list[str]:
    return [finding.name for finding in judge(seen)]


def test_a_healthy_stream_has_no_finding() -> None:
    assert judge(HEALTHY) == []


def test_findings_are_ordered_by_harm_and_every_one_says_what_to_change() -> None:
    awful = answer(Arrival(0.5, b"oops\n\n"), headers=HEADERS[:2], left_at=40)
    findings = judge(replace(HEALTHY, look=awful, long=awful, http2=False))
    names = [one.name for one in findings]
    assert names == ["format", "no-heartbeat", "http1", "cacheable"]
    assert [one.harm for one in findings] == sorted((one.harm for one in findings), reverse=True)
    assert all(one.seen and one.why and one.change for one in findings)


@pytest.mark.parametrize(("silence", "who"), [(60.1, "nginx"), (100.2, "Cloudflare"), (45, "")])
def test_a_cut_after_silence_names_whose_limit_it_is(silence: float, who: str) -> None:
    cut = answer(event(1, 0.5), left=CUT, left_at=0.5 + silence)
    (finding, *_) = judge(replace(HEALTHY, long=cut))
    assert finding.name == "idle-cut"
    assert who in finding.seen
    assert ("limit of" in finding.seen) == bool(who)


def test_a_stream_of_a_cgi_host_that_ends_by_itself_after_a_minute_is_fine() -> None:
    arrivals = [Arrival(at, b":\n") for at in range(15, 60, 15)]
    for end in (ENDED, CLOSED):
        long = answer(*arrivals, Arrival(60, b"retry: 2500\n"), left=end, left_at=60.0)
        assert judge(replace(HEALTHY, long=long)) == []


def test_a_stream_that_is_cut_says_how_long_it_lived() -> None:
    cut = answer(event(1, 29.9), event(2, 30.0), left=CUT, left_at=30.2)
    finding = judge(replace(HEALTHY, long=cut, look=cut))[0]
    assert finding.name == "cut"
    assert "30.2 s" in finding.seen
    assert "gunicorn -k gevent" in finding.change


def test_a_heartbeat_in_time_is_enough_and_one_too_late_is_not() -> None:
    beats = [Arrival(at, b":\n") for at in (15, 30, 45)]
    assert judge(replace(HEALTHY, long=answer(*beats, left_at=59))) == []
    assert "no-heartbeat" in found(replace(HEALTHY, long=answer(Arrival(31, b":\n"), left_at=40)))


def test_too_many_events_are_a_finding() -> None:
    assert "flood" in found(replace(HEALTHY, long=replace(FINE, left=FULL)))


def test_a_measured_delay_outweighs_a_guess_from_batches() -> None:
    lumps = answer(*(event(n, 1.0 * (n // 4)) for n in range(4, 160)))
    seen = replace(HEALTHY, look=lumps, long=lumps)
    assert found(seen) == ["buffered"]
    assert found(replace(seen, probe=Measured(URL, 0.001, (0.001,) * 10))) == []
    assert found(replace(seen, probe=Measured(URL, 0.001, (0.1,) * 10))) == ["delayed"]
    assert found(replace(seen, probe=Measured(URL, 0.001, (2.0,) * 10))) == ["buffered"]


def test_a_fault_of_the_upstream_is_not_blamed_on_the_hop_in_front() -> None:
    silent = Exchange(URL, left_at=6.0)
    head = Exchange(URL, "HEAD", status=200, headers=HEADERS, head_at=0.01)
    seen = replace(HEALTHY, look=silent, long=silent, head=head)
    assert judge(seen)[0].hop == "nginx"
    direct = replace(seen, upstream=seen)
    assert judge(direct)[0].hop == ""


def test_a_fault_that_a_short_look_at_the_upstream_cannot_show_is_not_blamed() -> None:
    silent = answer(event(1, 0.5), left_at=35.0)
    short = replace(silent, left_at=4.0)
    seen = Seen(URL, look=silent, long=silent, upstream=Seen(URL, look=short))
    cacheable = replace(seen, look=replace(silent, headers=HEADERS[:2]))
    where = blame(cacheable)
    assert {"no-heartbeat", "cacheable"} <= set(found(cacheable))
    assert where == {"cacheable": "in front of upstream"}
    both = replace(cacheable, upstream=Seen(URL, look=replace(short, headers=HEADERS[:2])))
    assert blame(both) == {"cacheable": "upstream"}


def test_headers_without_events_are_buffered_if_the_upstream_sends_events() -> None:
    nothing = replace(answer(left_at=30.0), arrivals=())
    events = answer(*(event(n, n * 1.0) for n in range(1, 4)), left_at=4.0)
    seen = Seen(URL, look=nothing, long=nothing, upstream=Seen(URL, look=events))
    (first, *_) = judge(seen)
    assert (first.name, blame(seen)["buffered"]) == ("buffered", "in front of upstream")
    assert "the first event after 1.00 s" in first.seen
    # Where the upstream is as silent, nobody holds anything back.
    assert "buffered" not in found(replace(seen, upstream=Seen(URL, look=nothing)))


GZIP = (*HEADERS, ("Content-Encoding", "gzip"))
BROTLI = (*HEADERS, ("Content-Encoding", "br"))


def compressing(headers: Headers, arrivals: list[Arrival], plain: Exchange) -> Seen:
    opaque = headers is BROTLI
    look = replace(FINE, headers=headers, arrivals=tuple(arrivals), left_at=4.0, opaque=opaque)
    return Seen(URL, look=look, plain=plain, long=FINE)


def test_a_compression_that_holds_back_is_found_even_if_it_cannot_be_decoded() -> None:
    plain = answer(*(event(n, n * 1.2) for n in range(1, 4)), left_at=3.6)
    head = Arrival(0.02, b"\x1b\x0a")
    assert found(compressing(GZIP, [], plain)) == ["compressed"]
    assert found(compressing(BROTLI, [], plain)) == ["compressed"]
    assert found(compressing(BROTLI, [head], plain)) == ["compressed"]
    assert "Content-Encoding: br" in judge(compressing(BROTLI, [head], plain))[0].seen
    flushed = [Arrival(n * 1.2, b"\x9c\xf0") for n in range(4)]
    assert found(compressing(BROTLI, flushed, plain)) == []


def test_a_silent_compressed_stream_is_not_held_back() -> None:
    rare = answer(event(1, 2.3), left_at=4.0)
    assert found(compressing(GZIP, [Arrival(0.01, b"retry: 3000\n")], rare)) == []
    assert found(compressing(GZIP, [], replace(rare, arrivals=rare.arrivals[1:]))) == []


def test_a_server_that_is_slow_with_everything_does_not_hold_headers_back() -> None:
    late = answer(event(1, 1.2), head_at=1.2)
    late = replace(late, arrivals=(Arrival(1.2, b"retry: 1\n"), *late.arrivals[1:]))
    seen = Seen(URL, look=late, long=late)
    assert "headers-late" in found(seen)
    slow = Exchange(URL, "HEAD", status=200, head_at=1.1)
    assert "headers-late" not in found(replace(seen, head=slow))
    assert "headers-late" in found(replace(seen, head=replace(slow, head_at=0.01)))


def test_a_head_that_had_too_little_time_does_not_hang() -> None:
    impatient = Exchange(URL, "HEAD", left_at=0.25)
    seen = replace(HEALTHY, head=impatient)
    assert found(seen) == []
    assert any("HEAD" in note for note in untested(seen))
    assert found(replace(HEALTHY, head=replace(impatient, left_at=3.0))) == ["head"]


def test_an_answer_that_ends_with_its_connection_cannot_keep_it_alive() -> None:
    keeps = (*HEADERS, ("Connection", "keep-alive"))
    assert found(replace(HEALTHY, look=replace(FINE, headers=keeps))) == ["connection"]
    chunked = (*keeps, ("Transfer-Encoding", "chunked"))
    assert found(replace(HEALTHY, look=replace(FINE, headers=chunked))) == []
    closes = (*HEADERS, ("Connection", "close"))
    assert found(replace(HEALTHY, look=replace(FINE, headers=closes))) == []


@pytest.mark.parametrize(
    ("header", "value", "name"),
    [
        ("Server", "nginx/1.22.1", "nginx"),
        ("Server", "Apache/2.4.71 (Debian)", "Apache"),
        ("Server", "lighttpd/1.4.69", "lighttpd"),
        ("Server", "cloudflare", "Cloudflare"),
        ("CF-Ray", "8f1c2d3e4f5a6b7c-FRA", "Cloudflare"),
        ("Via", "1.1 1234abcd.cloudfront.net (CloudFront)", "CloudFront"),
        ("X-Cache", "Miss from cloudfront", "CloudFront"),
        ("X-Served-By", "cache-fra-etou8220100-FRA", "Fastly"),
        ("Via", "1.1 varnish (Varnish/7.1)", "Varnish"),
        ("X-Cache", "MISS from squid.example.org", "Squid"),
        ("Via", "1.1 vegur", "Heroku's router"),
        ("Via", "1.1 google", "Google's load balancer"),
    ],
)
def test_a_hop_is_recognized_by_the_headers_that_it_adds(
    header: str, value: str, name: str
) -> None:
    behind = (("Content-Type", "text/event-stream"), ("Cache-Control", "no-cache"))
    nothing = Exchange(URL, left_at=20.0)
    head = Exchange(URL, "HEAD", status=200, headers=((header, value), *behind), head_at=0.01)
    (first, *_) = judge(Seen(URL, look=nothing, long=nothing, head=head))
    assert (first.name, first.hop) == ("buffered", name)


def test_an_nginx_without_a_name_is_recognized_by_the_header_that_it_removes() -> None:
    sends = (*HEADERS[1:], ("X-Accel-Buffering", "no"))
    bare = replace(FINE, headers=HEADERS[1:])
    direct = Seen(URL, look=replace(FINE, headers=sends))
    (hop,) = path(Seen(URL, look=bare, long=bare, upstream=direct))
    assert hop.name == "nginx"
    assert "X-Accel-Buffering" in hop.sign
    passed_on = replace(FINE, headers=sends)
    assert path(Seen(URL, look=passed_on, long=passed_on, upstream=direct)) == []


def test_the_ids_after_a_reconnect_are_compared_one_by_one() -> None:
    def resumed(*ids: int) -> Seen:
        arrivals = [event(number, 0.1) for number in ids]
        return replace(
            HEALTHY, resumed=answer(*arrivals), resumed_after="1", expected=("2", "3", "4")
        )

    assert found(resumed(2, 3, 4, 5)) == []
    assert found(resumed(2, 3)) == []
    assert "was repeated" in judge(resumed(1, 2, 3))[0].seen
    assert "'2' was lost" in judge(resumed(3, 4, 5))[0].seen
    assert "an event was repeated" in judge(resumed(2, 3, 2, 3))[0].seen
    assert "nothing arrived" in judge(resumed())[0].seen


MAKES_A_FINDING = ("Finding", "blaming")


def test_what_the_server_says_about_an_error_is_passed_on() -> None:
    told = (("Content-Type", "application/json"),)
    text = Arrival(0.01, b'{"error": "Name a channel."}')
    error = Exchange(URL, status=400, headers=told, head_at=0.01, arrivals=(text,))
    assert judge(Seen(URL, look=error))[0].seen == 'the status is 400: {"error": "Name a channel."}'
    page = replace(error, headers=(("Content-Type", "text/html"),))
    assert judge(Seen(URL, look=page))[0].seen == "the status is 400"


def test_an_upstream_that_could_not_be_compared_is_reported() -> None:
    def notes(look: Exchange) -> str:
        return "\n".join(untested(replace(HEALTHY, upstream=Seen("http://b/", look=look))))

    assert "http://b/: Connection refused" in notes(
        Exchange("http://b/", failure="Connection refused")
    )
    assert "http://b/: it did not answer" in notes(Exchange("http://b/", left_at=4.0))
    assert "its status is 404" in notes(Exchange("http://b/", status=404, head_at=0.1))
    assert "comparison" not in notes(FINE)


def test_the_documentation_has_every_finding_and_no_other() -> None:
    named = set()
    for file in (ROOT / "ssekit" / "cli" / "doctor").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in MAKES_A_FINDING:
                named |= {one.value for one in node.args[:1] if isinstance(one, ast.Constant)}
    table = (ROOT / "docs" / "doctor.md").read_text().partition("## Findings")[2]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert named == {name for row in rows for name in re.findall("`([^`]+)`", row)}


# Strangers


@contextmanager
def broken_server(answers: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server of sockets that answers each request as a test says."""

    class Answering(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                self.request.recv(65536)
                answers(self.request)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


def for_ever(block: bytes) -> Callable[[socket.socket], None]:
    def answers(connection: socket.socket) -> None:
        while True:
            connection.sendall(block)

    return answers


BOMB = gzip.compress(bytes(50_000_000), 1)


def bomb(connection: socket.socket) -> None:
    connection.sendall(HEAD + b"Content-Encoding: gzip\r\n\r\n")
    connection.sendall(BOMB)


BROKEN_SERVERS: dict[str, Callable[[socket.socket], None]] = {
    "nothing": lambda connection: None,
    "garbage": lambda connection: connection.sendall(b"\x00\xff" * 5000),
    "another protocol": lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    "headers without end": for_ever(b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 8000),
    "a status without end": for_ever(b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    "a chunk of no length": lambda connection: connection.sendall(
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nhello\r\n"
    ),
    "a chunk of too much": lambda connection: connection.sendall(
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\nx"
    ),
    "a length of no number": lambda connection: connection.sendall(
        HEAD + b"Content-Length: 1e9\r\n\r\ndata: x\n\n"
    ),
    "broken gzip": lambda connection: connection.sendall(
        HEAD + b"Content-Encoding: gzip\r\n\r\nno gzip at all"
    ),
    "a line without end": for_ever(HEAD + b"\r\ndata: " + b"x" * 100_000),
    "a place that is no address": lambda connection: connection.sendall(
        b"HTTP/1.1 302 Found\r\nLocation: http://[::1/\r\nContent-Length: 0\r\n\r\n"
    ),
    "another place forever": lambda connection: connection.sendall(
        b"HTTP/1.1 302 Found\r\nLocation: x/x\r\nContent-Length: 0\r\n\r\n"
    ),
    "a file": lambda connection: connection.sendall(
        b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n"
    ),
    "a bomb": bomb,
    "terminal escape sequences": lambda connection: connection.sendall(
        b"HTTP/1.1 200 \x1b]0;title\x07\r\nContent-Type: \x1b[2J\xff\r\n\r\n"
    ),
}


@pytest.mark.parametrize("what", BROKEN_SERVERS)
def test_a_broken_server_is_a_finding_in_bounded_time_and_not_an_exception(
    what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with broken_server(BROKEN_SERVERS[what]) as url:
        began = time.monotonic()
        assert main(["doctor", url, "--seconds", "2"]) == 1
        assert time.monotonic() - began < 8
    output = capsys.readouterr()
    assert "1. " in output.out
    assert not set(output.out + output.err) & set(map(chr, [*range(9), *range(11, 32), 127]))


def test_a_drip_of_bytes_does_not_make_it_wait_longer() -> None:
    def drip(connection: socket.socket) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1000:
            connection.sendall(bytes([byte]))
            time.sleep(0.05)

    with broken_server(drip) as url:
        began = time.monotonic()
        exchange = ask(url, 0.5, Manner())
        assert time.monotonic() - began < 10  # The headers take a minute to come.
        assert not exchange.answered


def test_headers_for_one_host_are_not_sent_to_another() -> None:
    asked = []

    def tells(connection: socket.socket) -> None:
        connection.sendall(HEAD + b"\r\n")

    def sends_away(url: str) -> Callable[[socket.socket], None]:
        place = f"HTTP/1.1 307 Away\r\nLocation: {url}\r\nContent-Length: 0\r\n\r\n".encode()
        return lambda connection: connection.sendall(place)

    class Listening(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            asked.append(self.request.recv(65536))
            tells(self.request)

    with socketserver.TCPServer(("127.0.0.1", 0), Listening) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        other = f"http://127.0.0.1:{server.server_address[1]}/"
        manner = Manner(headers=(("Authorization", "Bearer secret"),))
        with broken_server(sends_away(other)) as url:
            examine(Plan(url, seconds=1.0), manner, lambda _: None)
        server.shutdown()
        thread.join()
    assert asked
    assert not any(b"secret" in request for request in asked)


# The command


def streaming(connection: socket.socket, retry: bytes = b"retry: 1000\n") -> None:
    connection.sendall(HEAD + b"Cache-Control: no-cache\r\n\r\n" + retry)
    for number in range(100):
        connection.sendall(f"data: x\nid: {number}\n\n".encode())
        time.sleep(0.1)


def test_the_report_is_json_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    with broken_server(streaming) as url:
        assert main(["doctor", url, "--seconds", "2", "--json", "--origin", "https://a.org"]) == 1
    output = capsys.readouterr()
    report = json.loads(output.out)
    assert report["url"] == url
    assert report["healthy"] is False
    names = [finding["name"] for finding in report["findings"]]
    assert names[0] == "cors"
    assert set(report["findings"][0]) >= {
        "name",
        "harm",
        "seen",
        "why",
        "change",
        "hop",
        "where",
        "advice",
    }
    assert "listening" in output.err


def test_advice_alone_is_shown_and_exits_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--seconds", "2", "--ignore", "resuming,post"]
    with broken_server(lambda connection: streaming(connection, b"")) as url:
        assert main(["doctor", url, *command]) == 0
        text = capsys.readouterr().out
        assert main(["doctor", url, *command, "--json"]) == 0
    assert "1 finding, advice only," in text
    assert "1. no-retry - advice" in text
    report = json.loads(capsys.readouterr().out)
    assert report["healthy"] is True
    assert [(one["name"], one["advice"]) for one in report["findings"]] == [("no-retry", True)]


def test_findings_can_be_left_out_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with broken_server(streaming) as url:
        ignored = "resuming,post,cacheable"
        assert main(["doctor", url, "--seconds", "2", "--ignore", ignored]) == 0
    assert "nothing wrong" in capsys.readouterr().out


def test_it_never_takes_longer_than_its_limit(capsys: pytest.CaptureFixture[str]) -> None:
    def hangs(connection: socket.socket) -> None:
        connection.recv(1)

    def seconds_taken() -> float:
        began = time.monotonic()
        with broken_server(hangs) as url:
            also = ["--upstream", url, "--origin", "https://a.org", "--seconds", "2"]
            assert main(["doctor", url, *also]) == 1
            took = time.monotonic() - began
        assert "no byte arrived" in capsys.readouterr().out
        return took

    assert seconds_taken() < 3.5


def test_a_name_that_is_not_resolved_does_not_take_longer_either(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(60) and [])

    def seconds_taken() -> float:
        began = time.monotonic()
        assert main(["doctor", "http://slow.example/", "--seconds", "2"]) == 1
        assert "slow.example: the name was not resolved in" in capsys.readouterr().out
        return time.monotonic() - began

    try:
        assert seconds_taken() < 3.5
    finally:
        over.set()


def test_every_address_of_a_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo

    def two(host: str, *more: Any, **options: Any) -> Any:
        if host != "two.example":
            return resolve(host, *more, **options)
        return resolve("127.0.0.2", *more, **options) + resolve("127.0.0.1", *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", two)
    with broken_server(streaming) as url:
        answer = ask(url.replace("127.0.0.1", "two.example"), 5, Manner(), enough=bool)
        assert answer.status == 200


def test_ctrl_c_ends_it_without_a_report_or_a_traceback() -> None:
    with broken_server(streaming) as url, ssekit("doctor", url, "--seconds", "30") as command:
        assert command.process.stderr is not None
        said = iter(command.process.stderr.readline, b"")
        assert any(b"listening" in line for line in said)
        command.interrupt()
        assert command.code() == 130
        assert command.output.read() == b""
        assert command.errors() == ""


def test_progress_is_one_line_on_a_terminal_and_gone_at_the_end() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal, log = Terminal(), io.StringIO()
    for output in (terminal, log):
        progress = Progress(output)
        progress.step("connecting to a \x1b[2Jstranger")
        progress.beat()
        progress.step("listening")
        progress.done()
    shown = terminal.getvalue()
    assert "\n" not in shown
    assert "0 s  connecting" in shown
    assert "\x1b" not in shown
    assert shown.endswith(" \r")
    connecting, listening = log.getvalue().splitlines()
    assert listening == "ssekit doctor: listening"
    assert "\x1b" not in connecting


def test_an_address_without_a_scheme_is_refused_with_a_suggestion(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["doctor", "localhost:8000/clock"])
    assert "did you mean http://localhost:8000/clock?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["ftp://example.org/"],
        ["http://"],
        ["http://a b/"],
        ["http://a:b/"],
        ["http://a/", "--seconds", "0"],
        ["http://a/", "--seconds", "nan"],
        ["http://a/", "--heartbeat", "inf"],
        ["http://a/", "--header", "no colon"],
        ["http://a/", "--header", "A: b\r\nC: d"],
        ["http://a/", "--upstream", "a/"],
        ["http://a/", "--origin", "a b"],
    ],
)
def test_wrong_usage_is_exit_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["doctor", *arguments])
    assert ended.value.code == 2
    assert "ssekit doctor: error: " in capsys.readouterr().err
