"""One address for many users: who is admitted to what, and how a stream ends that no longer may."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
from werkzeug import Request

from ssekit import BrokerUnavailable, Hub
from ssekit.access import Grant
from ssekit.hub import follower
from ssekit.hub.endpoint import GrantedBlocks
from ssekit.hub.granted import GrantedStream
from ssekit.hub.revocations import CHANNEL
from ssekit.testing import ReceivedStream, connect
from tests.clients import Client
from tests.servers import Server, gunicorn
from tests.waiting import until, until_asleep

APP = "tests.apps.granted:app"


@pytest.fixture
def hub(url: str) -> Iterator[Hub]:
    with Hub(url) as found:
        yield found


def admit(**grant: Any) -> Any:
    """An ``authorize`` that gives everybody the same grant."""
    options = {"channels": ["a", "b", "user.7.*"], **grant}
    return lambda request: Grant(**options)


def ids(stream: ReceivedStream, count: int) -> list[str]:
    return [str(next(stream).data) for _ in range(count)]


def opened(stream: ReceivedStream) -> ReceivedStream:
    assert next(stream).event == "stream-open"
    return stream


class TestAGrant:
    def test_admits_to_its_channels_and_to_no_other(self, hub: Hub) -> None:
        with connect(hub.endpoint(admit())) as stream:
            opened(stream)
            for channel in ("c", "b", "user.7.mail", "a"):
                hub.publish(channel, channel)
            assert ids(stream, 2) == ["b", "a"]

    def test_is_narrowed_by_what_the_client_names(self, hub: Hub) -> None:
        with connect(hub.endpoint(admit()), "/?channel=user.7.mail&channel=b") as stream:
            opened(stream)
            for channel in ("a", "user.7.mail", "user.8.mail", "b"):
                hub.publish(channel, channel)
            assert ids(stream, 2) == ["user.7.mail", "b"]

    @pytest.mark.parametrize(
        ("query", "status"),
        [
            ("channel=c", 403),
            ("channel=A", 403),
            ("channel=user.8.mail", 403),
            ("channel=a&channel=c", 403),
            ("channel=a*", 400),
            ("channel=a%00", 400),
            ("channel=%00access", 400),
            ("channel=", 400),
            ("&".join(f"channel=user.7.{number}" for number in range(101)), 400),
            ("&".join(f"channel=user.7.{number}" for number in range(10_000)), 400),
        ],
    )
    def test_is_never_widened(self, hub: Hub, query: str, status: int) -> None:
        with connect(hub.endpoint(admit()), f"/?{query}") as stream:
            assert stream.status == status

    def test_limits_replays_state_and_what_a_strange_id_brings(self, hub: Hub) -> None:
        first = hub.publish("secret", "not for them")
        hub.publish("secret", "a value", key="k")
        hub.publish("a", "for them")
        with connect(hub.endpoint(admit(), replay="all")) as stream:
            assert next(stream).data == "for them"
            assert next(stream).event == "stream-open"
        with connect(hub.endpoint(admit()), last_event_id=first.id) as stream:
            assert next(stream).data == "for them"

    def test_none_is_401_and_an_http_exception_its_own_answer(self, hub: Hub) -> None:
        from werkzeug.exceptions import Gone

        def gone(request: Request) -> Grant:
            raise Gone("deleted")

        with connect(hub.endpoint(lambda request: None)) as stream:
            assert stream.status == 401
        with connect(hub.endpoint(gone)) as stream:
            assert stream.status == 410

    def test_that_has_expired_or_is_too_old_is_403(self, hub: Hub) -> None:
        for grant in ({"expires": time.time() - 1}, {"issued": time.time() - 90_000}):
            with connect(hub.endpoint(admit(**grant))) as stream:
                assert stream.status == 403
        with connect(hub.endpoint(admit(issued=time.time() - 90_000), max_age=1e6)) as stream:
            opened(stream)

    def test_ends_the_stream_when_it_expires(self, hub: Hub) -> None:
        expires = time.time() + 0.4
        with connect(hub.endpoint(admit(expires=expires)), timeout=5) as stream:
            opened(stream)
            body = stream.read_all()
            assert expires <= time.time() < expires + 1.5
            assert b"\nretry: " in body


class TestAPageOfAnotherSite:
    @pytest.mark.parametrize(
        ("origins", "origin", "status"),
        [
            ((), None, 403),
            ((), "https://evil.example", 403),
            (("https://app.example",), "https://evil.example", 403),
            (("https://app.example",), "https://app.example", 200),
            ("*", "https://evil.example", 200),
        ],
    )
    def test_opens_no_stream_with_the_users_cookies(
        self, hub: Hub, origins: Any, origin: str | None, status: int
    ) -> None:
        headers = {"Sec-Fetch-Site": "cross-site", **({"Origin": origin} if origin else {})}
        with connect(hub.endpoint(admit(), origins=origins), headers=headers) as stream:
            assert stream.status == status


class TestAnAuthorizeThatFails:
    def test_tells_an_event_source_to_come_back_and_others_503(
        self, hub: Hub, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(request: Request) -> Grant:
            raise OSError("too many connections")

        app = hub.endpoint(fail)
        with caplog.at_level(logging.ERROR, "ssekit.access"):
            for _ in range(20):
                with connect(app) as stream:
                    assert stream.status == 200
                    assert stream.read_all().startswith(b"retry: ")
                with connect(app, headers={"Accept": "*/*"}) as stream:
                    assert stream.status == 503
        lines = [record for record in caplog.records if "authorize of" in record.getMessage()]
        assert 1 <= len(lines) <= 3  # one a second, however many clients come

    def test_that_is_a_decision_is_final(self, hub: Hub) -> None:
        with connect(hub.endpoint(lambda request: None), headers={"Accept": "*/*"}) as stream:
            assert stream.status == 401


def test_no_more_clients_are_authorized_at_once_than_the_bound(hub: Hub) -> None:
    inside: list[Request] = []
    go_on = threading.Event()

    def look_up(request: Request) -> Grant:
        inside.append(request)
        go_on.wait(10)
        return Grant(["news"])

    def enter() -> int:
        with connect(app) as stream:
            return stream.status

    app = hub.endpoint(look_up, authorizing=3)
    with ThreadPoolExecutor(9) as pool:
        entering = [pool.submit(enter) for _ in range(9)]
        until(lambda: len(inside) == 3)
        until_asleep(pool)
        assert len(inside) == 3
        go_on.set()
        assert [one.result() for one in entering] == [200] * 9
    assert len(inside) == 9


@pytest.mark.parametrize("authorizing", [0, -1, True, 1.5])
def test_a_bound_on_authorizing_is_a_whole_number(authorizing: Any) -> None:
    with Hub() as hub, pytest.raises(ValueError, match="authorizing"):
        hub.endpoint(admit(), authorizing=authorizing)


def test_what_is_revoked_has_to_be_named(hub: Hub) -> None:
    for name in ("disconnect", "revoke"):
        with pytest.raises(ValueError, match="nobody is not everybody"):
            getattr(hub, name)()
        with pytest.raises(ValueError, match="control characters"):
            getattr(hub, name)(subject="ann\nbob")
        with pytest.raises(ValueError, match="control characters"):
            getattr(hub, name)(subject="")


class TestARevocation:
    def test_ends_the_streams_that_match_all_that_is_given(self, hub: Hub) -> None:
        with ExitStack() as stack:

            def open_stream(subject: str, session: str, channel: str) -> ReceivedStream:
                app = hub.endpoint(admit(subject=subject, session=session, issued=time.time()))
                return opened(stack.enter_context(connect(app, f"/?channel={channel}")))

            one = open_stream("ann", "1", "a")
            two = open_stream("ann", "2", "a")
            other = open_stream("ann", "1", "b")
            bob = open_stream("bob", "1", "a")
            hub.disconnect(subject="ann", session="1", channel="a")
            one.read_all()
            hub.publish("a", "still there")
            hub.publish("b", "still there")
            for stream in (two, other, bob):
                assert next(stream).data == "still there"
            hub.revoke(subject="ann")
            two.read_all()
            other.read_all()
            hub.publish("a", "alone")
            assert next(bob).data == "alone"

    def test_is_no_pattern(self, hub: Hub) -> None:
        with connect(hub.endpoint(admit(subject="ann"))) as stream:
            opened(stream)
            hub.revoke(subject="*")
            hub.revoke(subject="an%")
            hub.revoke(channel="a*")
            hub.publish("a", "still there")
            assert next(stream).data == "still there"

    def test_refuses_grants_issued_before_it_and_of_unknown_age(self, hub: Hub) -> None:
        before = time.time()
        hub.revoke(subject="ann")
        for issued in (before, None):
            with connect(hub.endpoint(admit(subject="ann", issued=issued))) as stream:
                assert stream.status == 403
        with connect(hub.endpoint(admit(subject="ann", issued=time.time() + 1))) as stream:
            opened(stream)

    def test_a_disconnected_client_may_come_back(self, hub: Hub) -> None:
        app = hub.endpoint(admit(subject="ann"))
        with connect(app) as stream:
            opened(stream)
            hub.disconnect(subject="ann")
            stream.read_all()
        with connect(app) as stream:
            opened(stream)

    def test_reaches_a_stream_between_authorizing_and_opening(self, hub: Hub) -> None:
        def authorize(request: Request) -> Grant:
            grant = Grant(["a"], subject="ann", issued=time.time())
            hub.disconnect(subject="ann")  # as another request does at this moment
            until(lambda: hub._opened.access()._revocations._known)
            return grant

        with connect(hub.endpoint(lambda request: Grant(["a"]))) as stream:
            opened(stream)  # so that this process follows revocations
        with connect(hub.endpoint(authorize)) as stream:
            assert stream.read_all().startswith(b"retry: ")

    def test_before_a_stream_is_taken_over_leaves_its_end_to_the_server(self) -> None:
        stream = GrantedStream(Grant(["a"]), frozenset({"a"}), 0.0)
        inner: Any = SimpleNamespace(take_over=lambda stream: True, stopper=lambda: id)
        blocks = GrantedBlocks(inner, stream)
        opened: Any = SimpleNamespace(admission=SimpleNamespace(at_end=()))
        assert blocks.take_over(opened)
        stream.stop("revoked")
        assert not blocks.take_over(opened)


@pytest.mark.parametrize("begin", ["with history", "after an id"])
def test_nothing_is_sent_from_the_log_before_a_disconnection_in_front_of_it_is_known(
    url: str, begin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if url == "memory:":
        pytest.skip("memory: has no other process")
    goes_on = threading.Event()
    goes_on.set()
    with Hub(url) as hub, Hub(url) as other:
        follow = hub._broker.follow

        def follow_slowly(*arguments: Any) -> Any:
            found = follow(*arguments)
            goes_on.wait(10)
            return found

        def authorize(request: Request) -> Grant:
            grant = Grant(["a"], subject="ann")
            other.disconnect(subject="ann")
            other.publish("a", "secret")
            return grant

        monkeypatch.setattr(hub._broker, "follow", follow_slowly)
        monkeypatch.setattr(follower, "RECENT", 1)
        first, _, _ = (hub.publish("a", text) for text in ("first", "second", "third"))
        with connect(hub.endpoint(admit(subject="bob"))) as bob:
            opened(bob)
            goes_on.clear()
            begins = {"last_event_id": first.id} if begin == "after an id" else {}
            with connect(hub.endpoint(authorize, replay="all"), **begins) as ann:
                assert ann.status == 200
                threading.Timer(0.2, goes_on.set).start()
                assert b"secret" not in ann.read_all()
            assert next(bob).data == "secret"


def test_a_revocation_is_known_to_a_process_that_starts_later(url: str) -> None:
    if url == "memory:":
        pytest.skip("memory: ends with its process")
    with Hub(url) as first:
        first.revoke(subject="ann")
    with Hub(url) as second:
        with connect(second.endpoint(admit(subject="ann", issued=time.time() - 1))) as stream:
            assert stream.status == 403


def test_who_was_disconnected_may_come_back_to_a_process_that_starts_later(url: str) -> None:
    if url == "memory:":
        pytest.skip("memory: ends with its process")
    with Hub(url) as first:
        first.disconnect(subject="ann")
    with Hub(url) as second, connect(second.endpoint(admit(subject="ann"))) as stream:
        opened(stream)


def test_a_process_that_only_revokes_does_not_follow_and_removes_what_has_expired(url: str) -> None:
    def followers() -> set[threading.Thread]:
        return {one for one in threading.enumerate() if one.name == "ssekit-follower"}

    before = followers()
    with Hub(url) as first, Hub(url) as other:
        first.revoke(subject="ann", keep=0.001)
        time.sleep(0.002)  # until it has expired
        second = first if url == "memory:" else other
        second.revoke(subject="bob")
        second.disconnect(session="1")
        assert not followers() - before  # earlier ones may still be ending
        state = second._broker.opening([CHANNEL], 0).state
        kept = [json.loads(entry.key or "")[1:3] for entry in state]
        assert kept == [["bob", None], [None, "1"]]
        with connect(second.endpoint(admit(subject="bob", issued=time.time() - 1))) as stream:
            assert stream.status == 403


def test_a_revocation_while_the_log_is_away_holds_here_and_is_tried_again(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broker = hub._broker
    append, away = broker.append, True

    def failing(*arguments: Any, **options: Any) -> Any:
        if away:
            raise BrokerUnavailable("away")
        return append(*arguments, **options)

    monkeypatch.setattr(broker, "append", failing)
    with connect(hub.endpoint(admit(subject="ann", issued=time.time()))) as stream:
        opened(stream)
        hub.revoke(subject="ann")
        stream.read_all()
    assert "tried again" in caplog.text
    assert broker.opening(["\0access"], 0).state == []
    away = False
    until(lambda: broker.opening(["\0access"], 0).state)


WAYS = {
    "taken over": ("gevent", "/"),
    "iterated": ("gevent", "/iterated"),
    "threads": ("gthread", "/"),
}


def act(server: Server, **query: str) -> None:
    urlopen(f"{server.url}/act?{urlencode(query)}", timeout=10).close()


def granted(server: Server) -> tuple[int, int]:
    with urlopen(f"{server.url}/inside", timeout=10) as answer:
        streams, taken = answer.read().split()
        return int(streams), int(taken)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Iterator[tuple[Server, str, bool]]:
    worker, path = WAYS[request.param]
    threads = ["--threads", "40"] if worker == "gthread" else []
    with gunicorn(APP, *threads, worker=worker) as server:
        yield server, path, request.param == "taken over"


def test_after_a_revocation_nothing_arrives_however_a_stream_is_served(
    way: tuple[Server, str, bool],
) -> None:
    server, path, is_taken = way
    with ExitStack() as stack:

        def open_stream(user: str) -> Client:
            client = Client(server.url + path, headers={"X-User": user})
            return stack.enter_context(client)

        anns = [open_stream("ann") for _ in range(10)]
        bobs = [open_stream("bob") for _ in range(10)]
        for client in anns + bobs:
            client.until_body(b"stream-open" if path == "/" else b"STREAM-OPEN")
        if is_taken:
            until(lambda: granted(server) == (20, 20))
        act(server, do="revoke", subject="ann")
        act(server, do="publish", channel="news", data="secret")
        for client in anns:
            assert b"secret" not in client.until_end(5).lower()
        for client in bobs:
            client.until_body(b"secret" if path == "/" else b"SECRET")
        until(lambda: granted(server)[0] == 10)


def test_grants_expire_within_a_second_whenever_they_do(way: tuple[Server, str, bool]) -> None:
    server, path, _ = way
    with ExitStack() as stack:
        began = time.monotonic()
        clients = []
        for number in range(10):
            headers = {"X-User": "ann", "X-Seconds": f"{1 + number / 10}"}
            client = stack.enter_context(Client(server.url + path, headers=headers))
            client.until_body(b":" if path != "/" else b"stream-open")
            clients.append(client)
        for client in clients:
            body = client.until_end(10)
            assert b"retry: " in body.lower()
        assert time.monotonic() - began < 6
        until(lambda: granted(server)[0] == 0)
