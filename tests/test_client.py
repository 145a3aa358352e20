"""ssekit.client against servers that do what the standard has a rule for."""

from __future__ import annotations

import logging
import math
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator

import httpx
import pytest

from ssekit import Event, InvalidEvent, SSEError, client
from ssekit.client import Listener, StreamRefused, listen
from tests.commands import printed
from tests.ports import free_port
from tests.scripted import STREAM, Answer, Request, Scripted, hold
from tests.waiting import until, until_asleep

GONE = b"HTTP/1.1 204 No Content\r\n\r\n"


def answer(status: str, *headers: str, body: bytes = b"") -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(head).encode() + body


def heard(*answers: Answer, retry: float = 0, **options: object) -> tuple[list[Event], Scripted]:
    """Listen until the server says 204, which ends the script; return what came."""
    with (
        Scripted([*answers, GONE]) as server,
        listen(server.url, retry=retry, **options) as events,  # type: ignore[arg-type]
    ):
        return list(events), server


@pytest.fixture(autouse=True)
def _no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "BACKOFF_FIRST", 0.0)


def message(data: str, last_id: str = "") -> Event:
    return Event(data, "message", last_id)


def test_events_come_from_one_connection_after_the_other() -> None:
    events, server = heard(
        STREAM + b"data: one\nid: 1\n\n", STREAM + b"event: x\ndata: two\nid: 2\n\n"
    )
    assert events == [message("one", "1"), Event("two", "x", "2")]
    assert [request.last_event_id for request in server.requests] == [None, "1", "2"]


def test_the_request_asks_for_an_event_stream_and_for_no_compression() -> None:
    _, server = heard(headers={"Authorization": "Bearer secret"})
    headers = server.requests[0].headers
    assert headers["Accept"] == "text/event-stream"
    assert headers["Accept-Encoding"] == "identity"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Authorization"] == "Bearer secret"
    assert "Last-Event-Id" not in headers


def test_the_last_event_id_is_sent_as_utf_8() -> None:
    _, server = heard(STREAM + "id: \u6b22\u8fce\n\n".encode(), last_event_id="\u2026")
    assert [request.last_event_id for request in server.requests] == ["\u2026", "\u6b22\u8fce"]


def test_an_id_sticks_across_connections_until_another_or_an_empty_one() -> None:
    events, server = heard(
        STREAM + b"id: 1\n\n",
        STREAM + b"data: x\n\n",
        STREAM + b"id\ndata: y\n\n",
    )
    assert events == [message("x", "1"), message("y", "")]
    assert [request.last_event_id for request in server.requests] == [None, "1", "1", None]


def test_an_id_that_a_header_cannot_carry_is_refused_when_given_and_fails_when_received() -> None:
    with pytest.raises(InvalidEvent):
        listen("http://127.0.0.1/", last_event_id="a\nX-Injected: yes")
    with pytest.raises(StreamRefused):
        heard(STREAM + b"id: a\x0bb\n\n")
    _, server = heard(STREAM + b"id:  spaces around \n\n")
    assert server.requests[1].last_event_id == "spaces around"


def test_a_header_is_sent_as_utf_8() -> None:
    _, server = heard(headers={"X-Name": "Zoë"})
    assert server.requests[0].headers["X-Name"].encode("latin-1") == "Zoë".encode()


@pytest.mark.parametrize(
    "wrong",
    [{"timeout": 0}, {"timeout": math.nan}, {"retry": -1}, {"retry": math.nan}, {"limit": 0}],
)
def test_a_number_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        listen("http://127.0.0.1/", **wrong)  # type: ignore[arg-type]


def test_there_may_be_no_timeout() -> None:
    assert heard(STREAM + b"data: x\n\n", timeout=math.inf)[0] == [message("x")]


def test_an_unfinished_event_is_dropped_and_its_id_does_not_count() -> None:
    events, server = heard(STREAM + b"id: 1\ndata: whole\n\nid: 2\ndata: cut\n")
    assert events == [message("whole", "1")]
    assert server.requests[1].last_event_id == "1"


def test_a_connection_cut_at_any_byte_loses_no_event_and_repeats_none() -> None:
    stored = [Event(f"text {number}\nof two lines", id=f"17-{number}") for number in range(1, 4)]
    wire = b"retry: 0\n" + stored[0].encode() + b":\n" + stored[1].encode() + stored[2].encode()

    def resumed(request: Request, connection: socket.socket) -> None:
        after = int((request.last_event_id or "17-0").partition("-")[2])
        connection.sendall(STREAM + b"".join(event.encode() for event in stored[after:]))

    with httpx.Client() as shared:
        for cut in range(len(wire) + 1):
            events, _ = heard(STREAM + wire[:cut], resumed, client=shared)
            assert events == [message(event.data, event.id or "") for event in stored], cut


def test_a_chunked_answer_cut_in_the_middle_counts_as_lost() -> None:
    chunked = STREAM.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n")
    events, server = heard(chunked + b"9\r\ndata: x\n\n\r\n5\r\nda", chunked + b"0\r\n\r\n")
    assert events == [message("x")]
    assert len(server.requests) == 3


# What a hub sends to a client whose history is lost: its id comes last, with `stream-open`.
OPENING = (
    b'event: stream-reset\ndata: {"reason": "history-lost"}\n\n'
    b"data: newest of a key\n\n"
    b"event: stream-open\ndata: {}\nid: 2-7\n\n"
)


def test_an_opening_that_is_cut_before_its_id_begins_anew() -> None:
    complete = OPENING.index(b"\n\n", OPENING.index(b"2-7")) + 2
    with httpx.Client() as shared:
        for cut in range(len(OPENING) + 1):
            events, server = heard(
                STREAM + b"data: x\nid: 1-5\n\n", STREAM + OPENING[:cut], client=shared
            )
            # Until the id of stream-open has come whole, the old one stays, and the hub knows it.
            expected = "2-7" if cut >= complete else "1-5"
            assert [request.last_event_id for request in server.requests] == [None, "1-5", expected]
    assert [event.event for event in events] == [
        "message",
        "stream-reset",
        "message",
        "stream-open",
    ]


def test_204_ends_permanently_and_the_id_stays() -> None:
    with Scripted([GONE]) as server:
        events = listen(server.url, last_event_id="1-5")
        assert list(events) == []
        assert list(events) == []
        assert len(server.requests) == 1
        assert events.last_event_id == "1-5"


def test_a_finished_stream_is_asked_once_more_and_then_ends() -> None:
    end = STREAM + b'event: stream-end\ndata: {"channel": "news"}\nid: 1-6\n\n'
    with Scripted([end, GONE]) as server, listen(server.url, retry=0) as events:
        # Another channel of the stream may go on: that all have ended is the server's to know.
        assert [event.event for event in events] == ["stream-end"]
        assert [request.last_event_id for request in server.requests] == [None, "1-6"]
        assert events.last_event_id == "1-6"


@pytest.mark.parametrize(
    ("bytes_of_it", "status", "kind", "words"),
    [
        (answer("404 Not Found", "Content-Type: text/plain"), 404, "text/plain", "404 Not Found"),
        (answer("503 Service Unavailable"), 503, None, "503 Service Unavailable"),
        (answer("206 Partial Content", "Content-Type: text/event-stream"), 206, None, "206"),
        (answer("200 OK", "Content-Type: text/html"), 200, "text/html", "text/html instead of"),
        (answer("200 OK", "Content-Type: text/event-streams"), 200, None, "text/event-streams"),
        (answer("200 OK"), 200, None, "no Content-Type"),
        (
            answer("200 OK", "Content-Type: text/event-stream", "Content-Encoding: gzip"),
            200,
            "text/event-stream",
            "compressed with gzip",
        ),
    ],
)
def test_another_answer_than_a_stream_fails_permanently(
    bytes_of_it: bytes, status: int, kind: str | None, words: str
) -> None:
    with Scripted([bytes_of_it]) as server:
        with pytest.raises(StreamRefused, match=words) as refused, listen(server.url) as events:
            next(events)
        assert refused.value.url == server.url
        assert refused.value.status == status
        assert kind is None or refused.value.content_type == kind
        assert isinstance(refused.value, SSEError)
        assert list(events) == []
        assert len(server.requests) == 1


@pytest.mark.parametrize("kind", ["Text/Event-Stream", "text/event-stream;charset=utf-8"])
def test_the_type_may_have_parameters_and_capitals(kind: str) -> None:
    stream = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\ndata: x\n\n".encode()
    assert heard(stream)[0] == [message("x")]


def test_a_stream_of_http_1_0_is_read_as_it_comes() -> None:
    with Scripted([hold(STREAM.replace(b"1.1", b"1.0") + b"data: x\n\n")]) as server:
        began = time.monotonic()
        with listen(server.url) as events:
            assert next(events) == message("x")
        assert time.monotonic() - began < 0.9  # clients on urllib3 take a second


def test_redirects_are_followed_and_bounded_and_their_bodies_left_unread() -> None:
    endless = hold(b"HTTP/1.1 307 Temporary\r\nLocation: /there\r\n\r\nendless")
    events, server = heard(endless, STREAM + b"data: x\nid: 7\n\n", endless)
    assert events == [message("x", "7")]
    asked = [(request.target, request.last_event_id) for request in server.requests]
    assert asked == [("/", None), ("/there", None), ("/", "7"), ("/there", "7")]
    with pytest.raises(StreamRefused, match="more than 20 times"):
        heard(*[answer("302 Found", "Location: /")] * 22)


def test_a_redirect_to_another_host_does_not_carry_the_authorization() -> None:
    with Scripted([GONE]) as other:
        moved = answer("302 Found", f"Location: {other.url}")
        heard(moved, headers={"Authorization": "Bearer secret"})
        (request,) = other.requests
    assert "Authorization" not in request.headers
    assert request.headers["Accept"] == "text/event-stream"


def test_a_redirect_to_something_else_than_http_fails_permanently() -> None:
    with pytest.raises(StreamRefused):
        heard(answer("302 Found", "Location: file:///etc/hostname"))


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1/", "127.0.0.1", "http://", "http://[::1", "http://127.0.0.1:65536/"]
)
def test_what_is_no_http_address_fails_permanently(url: str) -> None:
    with pytest.raises(StreamRefused), listen(url) as events:
        next(events)


def test_a_server_that_is_not_there_yet_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    with listen(f"http://127.0.0.1:{port}/", retry=0.05) as events:
        found: list[Event] = []
        thread = threading.Thread(target=lambda: found.append(next(events)))
        thread.start()
        until(lambda: len(caplog.records) > 1, what="two failed attempts")
        with socket.create_server(("127.0.0.1", port)) as late:
            connection, _ = late.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(STREAM + b"data: x\n\n")
                thread.join(10)
    assert found == [message("x")]
    assert "Connection refused; connecting again in 0.1 s" in caplog.text


def test_silence_longer_than_the_timeout_counts_as_lost(caplog: pytest.LogCaptureFixture) -> None:
    events, server = heard(hold(STREAM), hold(b""), STREAM + b"data: x\n\n", timeout=0.1)
    assert events == [message("x")]
    assert len(server.requests) == 4
    assert "nothing came for 0.1 s" in caplog.text


def test_heartbeats_keep_a_quiet_stream() -> None:
    def quiet(request: Request, connection: socket.socket) -> None:
        connection.sendall(STREAM)
        for _ in range(10):
            time.sleep(0.1)
            connection.sendall(b":\n")
        connection.sendall(b"data: x\n\n")

    events, server = heard(quiet, timeout=0.6)
    assert events == [message("x")]
    assert len(server.requests) == 2


def test_an_event_beyond_the_limit_ends_with_an_error() -> None:
    with pytest.raises(InvalidEvent, match="longer than 1000 bytes"):
        heard(hold(STREAM + b"data: " + b"x" * 2000), limit=1000)


def test_the_stream_says_how_long_to_wait() -> None:
    with Scripted([STREAM + b"retry: 1\n", STREAM + b"retry: 70\n", GONE]) as server:
        began = time.monotonic()
        with listen(server.url) as events:
            assert list(events) == []
            assert events.retry == 0.07
        assert 0.07 < time.monotonic() - began < 3.0


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The waits between attempts, noted instead of waited, without the random part."""
    noted: list[float] = []
    monkeypatch.setattr(client, "BACKOFF_FIRST", 0.1)
    monkeypatch.setattr(client, "jittered", lambda seconds, low, _high: seconds * low)

    class Noting(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            noted.append(timeout or 0.0)
            return False

    real = Listener.__init__

    def made(self: Listener, *arguments: object) -> None:
        real(self, *arguments)  # type: ignore[arg-type]
        self._closed = Noting()

    monkeypatch.setattr(Listener, "__init__", made)
    return noted


def test_attempts_that_bring_nothing_come_at_growing_intervals(waits: list[float]) -> None:
    heard(*[STREAM] * 12, retry=0)
    assert waits == pytest.approx([min(0.1 * 2**n, 30.0) for n in range(1, 13)], abs=0.09)
    waits.clear()
    heard(*[STREAM] * 8, retry=3)
    assert waits == pytest.approx([3, 3, 3, 3, 3.2, 6.4, 12.8, 25.6], abs=0.09)


def test_a_stream_that_brings_events_is_asked_again_as_soon_as_it_says(waits: list[float]) -> None:
    events, _ = heard(*[STREAM + b"data: x\nretry: 0\n\n"] * 9)
    assert len(events) == 9
    assert waits == [0.0] * 9


def test_a_wait_longer_than_any_clock_is_cut(waits: list[float]) -> None:
    heard(STREAM + b"retry: 999999999999999999999\n")
    assert waits == [86_400.0]


def test_the_wait_has_a_random_part() -> None:
    caught: set[float] = set()
    events = listen("http://127.0.0.1/", retry=100)
    events._closed.wait = caught.add  # type: ignore[assignment]
    for _ in range(20):
        events._wait("a test", 0)
    assert len(caught) > 10
    assert all(100 <= wait <= 125 for wait in caught)


@pytest.mark.parametrize("head", [STREAM, b""], ids=["in the stream", "before the headers"])
def test_close_from_another_thread_ends_a_wait_at_once(head: bytes) -> None:
    with Scripted([hold(head)]) as server:
        events = listen(server.url)
        received: list[Event] = [message("never")]
        thread = threading.Thread(target=lambda: received.clear() or received.extend(events))  # type: ignore[func-returns-value]
        thread.start()
        until(lambda: server.requests)
        until_asleep(thread)
        events.close()
        thread.join(2)
        assert not thread.is_alive()
        assert received == []


def test_close_ends_the_wait_for_another_attempt() -> None:
    with Scripted([STREAM]) as server:
        events = listen(server.url, retry=60)
        thread = threading.Thread(target=lambda: list(events))
        thread.start()
        until(lambda: server.requests)
        events.close()
        thread.join(5)
        assert not thread.is_alive()
        assert len(server.requests) == 1


def test_leaving_the_block_closes_the_connection() -> None:
    disconnected = threading.Event()

    def watched(request: Request, connection: socket.socket) -> None:
        connection.sendall(STREAM + b"data: x\n\n")
        assert connection.recv(1) == b""
        disconnected.set()

    with Scripted([watched]) as server:
        with listen(server.url) as events:
            next(events)
        assert disconnected.wait(5)


def test_an_interrupt_closes_the_connection_and_is_passed_on() -> None:
    with Scripted([hold(STREAM)]) as server, listen(server.url) as events:
        main = threading.get_ident()
        timer = threading.Timer(0.1, signal.pthread_kill, [main, signal.SIGINT])
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            next(events)
        timer.join()
        until(lambda: not server._open)


def test_the_last_event_id_is_that_of_the_event_returned_last() -> None:
    stream = STREAM + b"data: 1\nid: 1\n\ndata: 2\nid: 2\n\n"
    with Scripted([hold(stream)]) as server, listen(server.url) as events:
        assert events.last_event_id == ""
        next(events)
        assert events.last_event_id == "1"
        next(events)
        assert events.last_event_id == "2"


def test_a_client_of_ones_own_is_used_and_left_open() -> None:
    with Scripted([STREAM + b"data: x\n\n", GONE]) as server:
        with httpx.Client(headers={"X-Mine": "yes"}) as mine:
            assert list(listen(server.url, retry=0, client=mine)) == [message("x")]
            assert not mine.is_closed
        assert server.requests[0].headers["X-Mine"] == "yes"
        assert server.requests[0].headers["Accept"] == "text/event-stream"


def test_the_tap_sees_every_byte() -> None:
    seen: list[bytes] = []
    heard(STREAM + b":\nretry: 0\ndata: x\n\n", tap=seen.append)
    assert b"".join(seen) == b":\nretry: 0\ndata: x\n\n"


def test_a_wrong_certificate_fails_permanently() -> None:
    error = httpx.ConnectError("certificate verify failed")
    error.__cause__ = ssl.SSLCertVerificationError("self-signed certificate")
    with pytest.raises(StreamRefused, match="certificate verify failed"):
        listen("https://127.0.0.1/")._explain(error)


def test_it_works_in_greenlets_and_close_ends_them() -> None:
    with Scripted([hold(STREAM + b"data: x\n\n")]) as server:
        printed("listening_greenlets", server.url)


def test_asking_for_an_event_while_another_thread_closes_the_stream_ends_it() -> None:
    ending, ended = threading.Event(), threading.Event()

    def events() -> Generator[Event, None, None]:
        try:
            yield Event("x")
        finally:
            ending.set()
            ended.wait(10)

    listener = listen("http://127.0.0.1/")
    listener._events = events()
    assert next(listener) == Event("x")
    closing = threading.Thread(target=listener.close)
    closing.start()
    assert ending.wait(10)
    assert list(listener) == []
    ended.set()
    closing.join()


def test_without_httpx_the_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['httpx'] = None; import ssekit.client"
    ran = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert ran.returncode == 1
    assert "pip install 'ssekit[client]'" in ran.stderr.splitlines()[-1]


def test_lost_connections_are_logged_and_ended_ones_are_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "ssekit.client")
    heard()
    assert caplog.record_tuples == []
    heard(STREAM)
    ((name, level, text),) = caplog.record_tuples
    assert (name, level) == ("ssekit.client", logging.WARNING)
    assert "the stream ended; connecting again in" in text
