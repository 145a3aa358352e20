"""A hub's streams by every way, taken over and iterated: order, lag, loss, limits and endings."""

from __future__ import annotations

import itertools
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tests.clients import Client, Clients
from tests.components import need_queue
from tests.servers import Server, gunicorn
from tests.waiting import until

APP = "tests.apps.news:app"


WAYS = {
    "taken, in batches": {"BATCH": "1", "SSEKIT_FANOUT": "io_uring"},
    "taken, in batches with aio": {"BATCH": "1", "SSEKIT_FANOUT": "aio"},
    "taken, a write for each": {"SSEKIT_FANOUT": "writes"},
    "taken, in many turns": {"TURNS": "1"},
    "iterated": {"SSEKIT_FANOUT": "off"},
}


@pytest.fixture(scope="module", params=WAYS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    if "BATCH" in WAYS[request.param]:
        need_queue(WAYS[request.param]["SSEKIT_FANOUT"]).close()
    env = {"HISTORY": "2000", "BEAT": "0.2", **WAYS[request.param]}
    with gunicorn(APP, env=env) as running:
        yield running


def get(url: str) -> str:
    with Client(url) as client:
        assert client.status == 200
        return client.until_end().decode()


def publish(server: Server, *data: str, channel: str = "news", padding: int = 0) -> list[str]:
    query = "&".join(f"data={text}" for text in data)
    return get(f"{server.url}/publish?channel={channel}&padding={padding}&{query}").split()


def inside(server: Server) -> tuple[int, int]:
    """How many connections are taken over, and how many descriptors the worker has open."""
    taken, descriptors = get(f"{server.url}/inside").split()
    return int(taken), int(descriptors)


def texts(client: Client) -> list[str]:
    return [event.data for event in client.events if event.event == "message"]


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("path", ["/", "/flask/", "/passing"])
def test_every_viewer_gets_every_event_once_and_in_order(
    server: Server, path: str, version: str
) -> None:
    with ExitStack() as stack:
        clients = [
            stack.enter_context(Client(server.url + path, version=version)) for _ in range(10)
        ]
        for client in clients:
            assert client.wait(1)[0].event == "stream-open"
        ids = []
        for first in range(0, 100, 10):
            ids += publish(server, *(str(number) for number in range(first, first + 10)))
        for client in clients:
            client.wait(101)
            assert texts(client) == [str(number) for number in range(100)]
            assert [event.id for event in client.events[1:]] == ids


def test_flask_and_bare_streams_are_taken_over_and_wrapped_ones_are_not() -> None:
    with gunicorn(APP) as server, Clients() as crowd:
        for path, taken in (("/", 2), ("/flask/", 4), ("/passing", 4)):
            crowd.join(2, server.url + path)
            until(lambda expected=taken: inside(server)[0] == expected)  # type: ignore[misc]


def test_middleware_that_changes_blocks_changes_all_of_them(server: Server) -> None:
    with Client(f"{server.url}/upper") as client:
        client.until_body(b"STREAM-OPEN")
        publish(server, "quiet")
        client.until_body(b"DATA: QUIET\n")
        client.until_body(b"\n:\n:\n")
        assert client.body == client.body.upper()


def test_viewers_get_their_channels_and_no_others(server: Server) -> None:
    with ExitStack() as stack:
        url = f"{server.url}/?channel="
        one, two, both = (
            stack.enter_context(Client(url + channels))
            for channels in ("one", "two", "one&channel=two")
        )
        for client in (one, two, both):
            client.wait(1)
        publish(server, "1", channel="one")
        publish(server, "2", channel="two")
        publish(server, "3", channel="three")
        publish(server, "end", channel="one")
        publish(server, "end", channel="two")
        for client, expected in ((one, ["1", "end"]), (two, ["2", "end"])):
            client.wait(3)
            assert texts(client) == expected
        both.wait(5)
        assert texts(both) == ["1", "2", "end", "end"]


def test_a_client_that_comes_back_gets_what_it_missed(server: Server) -> None:
    with Client(server.url) as client:
        client.wait(1)
        publish(server, "seen")
        last = client.wait(2)[1].id or ""
    missed = [str(number) for number in range(500)]
    for first in range(0, 500, 100):
        publish(server, *missed[first : first + 100])
        publish(server, *("x" for _ in range(100)), channel="busy")
    with Client(server.url, headers={"Last-Event-ID": last}) as client:
        client.wait(500)
        publish(server, "live")
        client.wait(501)
        assert texts(client) == [*missed, "live"]


def test_only_lost_history_is_told_as_lost(server: Server) -> None:
    with Client(server.url) as client:
        before = client.wait(1)[0].id or ""
        publish(server, "seen")
        last = client.wait(2)[1].id or ""
    epoch, _, _ = last.partition("-")
    for wrong in ("junk", "0-1", f"{epoch}-99999999", "1-1\n", f"{epoch}-01"):
        with Client(f"{server.url}/?last_event_id={wrong.strip()}") as client:
            event, opening = client.wait(2)
            assert (event.event, event.data) == ("stream-reset", '{"reason":"history-lost"}')
            assert not event.id
            assert opening.event == "stream-open"
    for _ in range(25):
        publish(server, *("x" for _ in range(100)), channel="busy")
    with Client(server.url, headers={"Last-Event-ID": last}) as client:
        publish(server, "found")
        assert client.wait(1)[0].data == "found"
    for _ in range(45):
        publish(server, *("x" for _ in range(100)))
    with Client(server.url, headers={"Last-Event-ID": before}) as client:
        assert [event.event for event in client.wait(2)] == ["stream-reset", "stream-open"]
        publish(server, "afterwards")
        assert client.wait(3)[2].data == "afterwards"


def test_heartbeats_come_when_nothing_else_does_and_only_then(server: Server) -> None:
    with Client(server.url) as client:
        client.wait(1)
        client.until_body(b"\n\n:\n:\n:\n")
        began = time.monotonic()
        length = len(client.body)
        while time.monotonic() - began < 0.5:
            publish(server, "busy")
        client.until_body(b"busy\nid")
        assert b"\n:\n:\n" not in client.body[length:]


def slow(url: str, last_event_id: str = "") -> socket.socket:
    """A connection with a small window, from which nobody reads."""
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    host, _, port = url.removeprefix("http://").partition(":")
    reader.connect((host, int(port)))
    reader.sendall(f"GET / HTTP/1.0\r\nLast-Event-ID: {last_event_id}\r\n\r\n".encode())
    return reader


def test_a_reader_that_stops_gets_everything_once_when_it_reads_again(server: Server) -> None:
    (last,) = publish(server, "before")
    with slow(server.url, last) as reader, Client(server.url) as other:
        other.wait(1)
        for first in range(0, 1500, 10):
            publish(server, *(f"{n}." for n in range(first, first + 10)), padding=1000)
        other.wait(1501, 30)  # Nobody else has waited for the slow one.
        other.until_body(b":\n" * 10)  # It stops for longer than a vanished host may be silent.
        publish(server, "end")
        received = b""
        reader.settimeout(10)
        while b"data: end\n" not in received:
            received += reader.recv(65536)
    numbers = [
        int(line.split(b".")[0].removeprefix(b"data: "))
        for line in received.split(b"\n")
        if line.endswith(b"yyy")
    ]
    assert numbers == list(range(1500))


def test_a_reader_that_lags_further_than_memory_goes_reads_on_from_the_broker() -> None:
    with gunicorn(APP, env={"HISTORY": "3000", "BEAT": "60"}) as server:
        (last,) = publish(server, "before")
        with slow(server.url, last) as reader:
            until(lambda: inside(server)[0] == 1)
            for first in range(0, 2500, 50):
                publish(server, *(f"{n}." for n in range(first, first + 50)), padding=300)
            publish(server, "end")
            received = b""
            reader.settimeout(10)
            while b"data: end\n" not in received:
                received += reader.recv(1 << 20)
        numbers = re.findall(rb"data: (\d+)\.y", received)
        assert numbers == [b"%d" % n for n in range(2500)]


def test_a_reader_that_lags_further_than_the_log_goes_is_closed() -> None:
    with gunicorn(APP, env={"HISTORY": "50", "BEAT": "60"}) as server:
        (last,) = publish(server, "before")
        with slow(server.url, last) as reader:
            until(lambda: inside(server)[0] == 1)
            for first in range(0, 2500, 50):
                publish(server, *(f"{n}." for n in range(first, first + 50)), padding=300)
            received = b""
            reader.settimeout(10)
            while more := reader.recv(1 << 20):
                received += more
        assert b"data: 0." in received
        assert b"data: 2499." not in received
        until(lambda: "ended='too slow'" in server.log)
        assert inside(server)[0] == 0


@pytest.mark.parametrize("path", ["/", "/passing"])
def test_descriptors_are_not_leaked(server: Server, path: str) -> None:
    with Clients() as crowd:
        crowd.join(1, server.url)
    until(lambda: inside(server)[0] == 0)
    _, before = inside(server)
    for round_ in range(3):
        with Clients() as crowd:
            clients = crowd.join(50, server.url + path)
            for client in clients[round_::3]:
                client.close()
            publish(server, "others")
    until(lambda: inside(server)[1] <= before)


@pytest.mark.parametrize("path", ["/", "/passing"])
def test_an_ended_stream_leaves_nothing_to_the_garbage_collector(path: str, server: Server) -> None:
    def churn() -> None:
        with Clients() as crowd:
            crowd.join(50, server.url + path)
        until(lambda: get(f"{server.url}/open") == "0")

    churn()
    get(f"{server.url}/garbage")
    churn()
    assert int(get(f"{server.url}/garbage")) < 50


def seconds_to_stop_500(number: int, *options: str) -> float:
    with gunicorn(APP, *options, env={"BEAT": "60"}) as server, Clients() as crowd:
        clients = crowd.join(490, server.url) + crowd.join(10, f"{server.url}/passing")
        until(lambda: inside(server)[0] == 490)
        took = server.seconds_to_stop(number)
        for client in clients:
            client.until_closing_retry()
        return took


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("options", [(), ("--keep-alive", "0")])
def test_a_stop_sends_500_viewers_a_closing_retry_in_under_2_seconds(
    number: int, options: tuple[str, ...]
) -> None:
    assert seconds_to_stop_500(number, *options) < 2


def test_an_ended_stream_has_one_access_line_with_its_counts(server: Server) -> None:
    with Client(f"{server.url}/logged") as client:
        client.wait(1)
        publish(server, "a", "b")
        client.wait(3)
    until(lambda: "path=/logged " in server.log)
    (line,) = (line for line in server.log.splitlines() if "path=/logged " in line)
    assert "events=3 " in line
    assert line.endswith("ended='client disconnected'")


def test_those_who_come_and_go_during_deliveries_get_each_event_once() -> None:
    with gunicorn(APP, env={"TURNS": "1", "HISTORY": "2000"}) as server, Clients() as clients:
        steady = clients.join(20, server.url)
        enough = threading.Event()

        def publish_on() -> int:
            for first in itertools.count(0, 5):
                publish(server, *map(str, range(first, first + 5)))
                if enough.is_set():
                    return first + 5
            raise AssertionError

        with ThreadPoolExecutor(1) as pool:
            published = pool.submit(publish_on)
            passing = []
            for _ in range(15):
                with Client(server.url) as client:  # Its descriptor is the next one's.
                    client.wait(4)
                passing.append(texts(client))
            enough.set()
        for client in steady:
            client.wait(published.result() + 1)
            assert texts(client) == [str(number) for number in range(published.result())]
        for some in passing:
            assert some == [str(number) for number in range(int(some[0]), int(some[-1]) + 1)]


@pytest.mark.parametrize("step", ["viewer", "options", "abandon"])
def test_a_connection_that_cannot_be_taken_over_is_iterated_and_loses_nothing(step: str) -> None:
    with gunicorn(APP, env={"TAKING_FAILS": step, "BEAT": "0.2"}) as server:
        with Client(server.url, version="1.1") as client:
            client.wait(1)
        until(lambda: get(f"{server.url}/open") == "0")
        _, before = inside(server)
        for _ in range(3):
            with Client(server.url, version="1.1") as client:
                assert client.wait(1)[0].event == "stream-open"
                publish(server, "one", "two")
                client.wait(3)
                assert texts(client) == ["one", "two"]
                client.until_body(b"\n:\n:\n")
                assert inside(server)[0] == 0
        until(lambda: get(f"{server.url}/open") == "0" and inside(server)[1] <= before)
        assert f"{step} failed" in server.log
