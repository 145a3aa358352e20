"""Channels that end: what viewers get, who is answered 204, and clients that know no hub events."""

from __future__ import annotations

import threading
from itertools import islice
from pathlib import Path

import pytest

from ssekit import ChannelFinished, Hub
from ssekit.testing import connect
from tests.clients import Client
from tests.servers import gunicorn
from tests.test_fanout import get, inside
from tests.waiting import until

ENDED = '{"channel":"job","reason":"finished","data":null}'
APP = "tests.apps.ends:app"


def test_a_finished_channel_ends_its_streams_after_its_last_event(hub: Hub) -> None:
    with connect(hub.stream("job")) as viewer:
        next(viewer)
        hub.publish("job", "last")
        end = hub.finish("job", {"files": 3})
        assert end is not None
        events = list(viewer)
        assert events[0].data == "last"
        assert events[1].event == "stream-end"
        assert events[1].data == '{"channel":"job","reason":"finished","data":{"files":3}}'
        assert events[1].id == end.id
        assert not viewer.body.endswith(b"retry: 2000\n")


def test_a_subscription_of_finished_channels_ends(hub: Hub) -> None:
    events = hub.subscribe("job", "news", timeout=5)
    hub.finish("job")
    hub.publish("news", "between")
    hub.finish("news")
    names = [event.event for event in events]
    assert names == ["stream-open", "stream-end", None, "stream-end"]


def test_a_stream_of_several_channels_ends_with_the_last_of_them(hub: Hub) -> None:
    with connect(hub.stream("job", "news")) as viewer:
        next(viewer)
        hub.finish("job")
        assert next(viewer).event == "stream-end"
        hub.publish("news", "still here")
        assert next(viewer).data == "still here"
        hub.finish("news")
        assert [event.event for event in viewer] == ["stream-end"]


def test_publishing_to_a_finished_channel_is_refused_until_it_is_reopen_hub(hub: Hub) -> None:
    hub.finish("job")
    for send in (
        lambda: hub.publish("job", "x"),
        lambda: hub.publish("job", "x", store=False),
        lambda: hub.publish("job", "x", key="a"),
        lambda: hub.remove("job", "a"),
        lambda: hub.producer("job").__enter__(),
    ):
        with pytest.raises(ChannelFinished) as raised:
            send()
        assert (raised.value.channel, raised.value.reason) == ("job", "finished")
    assert hub.finish("job") is None
    assert hub.reopen("job")
    assert not hub.reopen("job")
    hub.publish("job", "x")


def test_the_status_says_why_a_channel_is_finished(hub: Hub) -> None:
    assert hub.status("job") == ("open", None)
    hub.finish("job")
    assert hub.status("job") == ("finished", "finished")
    hub.reopen("job")
    assert hub.status("job") == ("open", None)
    assert hub.cancel("job")
    assert not hub.cancel("job")
    assert hub.status("job") == ("finished", "cancelled")


def test_a_new_client_of_a_finished_channel_gets_the_opening_the_end_and_no_more(
    hub: Hub,
) -> None:
    hub.publish("job", "state", key="k")
    hub.publish("job", "event")
    hub.finish("job")
    with connect(hub.stream("job", replay="all")) as viewer:
        events = list(viewer)
    assert [event.event for event in events] == ["message", "message", "stream-open", "stream-end"]
    assert [event.data for event in events] == ["state", "event", "{}", ENDED]


def test_a_client_that_missed_nothing_of_finished_channels_is_answered_204(hub: Hub) -> None:
    hub.publish("job", "event")
    with connect(hub.stream("job")) as viewer:
        opening = next(viewer)
        last = hub.publish("job", "last")
        end = hub.finish("job")
        list(viewer)
    assert end is not None
    for seen in (end.id, hub.position()):
        with connect(hub.stream("job"), last_event_id=seen) as viewer:
            assert viewer.status == 204
    for seen, missed in ((opening.id, ["last", ENDED]), (last.id, [ENDED])):
        with connect(hub.stream("job"), last_event_id=seen) as viewer:
            assert viewer.status == 200
            assert [event.data for event in viewer] == missed
    with connect(hub.stream("job", "news"), last_event_id=end.id) as viewer:
        assert viewer.status == 200
    hub.reopen("job")
    with connect(hub.stream("job"), last_event_id=end.id) as viewer:
        assert viewer.status == 200
        hub.publish("job", "again")
        assert next(viewer).data == "again"


def test_an_end_that_this_process_has_yet_to_read_is_known_to_who_has_seen_it(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path}/hub.db"
    with Hub(url) as one, Hub(url) as two:
        next(one.subscribe("job"))
        one.subscribe("job", last_event_id=two.position()).close()  # It was open then.
        follower, reads_on = one._opened.follower(), threading.Event()
        take = follower._take
        follower._take = lambda entries: reads_on.wait(20) and take(entries)  # type: ignore[method-assign, func-returns-value]
        end = two.finish("job")
        assert end is not None
        with connect(one.stream("job"), last_event_id=end.id) as viewer:
            assert viewer.status == 204
        reads_on.set()


@pytest.mark.parametrize("path", ["/", "/passing/"])
def test_a_client_that_came_back_during_an_outage_is_told_the_end_after_it(path: str) -> None:
    with gunicorn(APP) as server:
        end = get(f"{server.url}/finish?channel=job")
        with Client(f"{server.url}{path}") as other:
            other.wait(1)  # The server follows the log.
            get(f"{server.url}/away")
            back = Client(f"{server.url}{path}?channel=job", headers={"Last-Event-ID": end})
            with back:
                assert back.status == 200
                back.until_body(b":\n:\n")
                assert not back.ended
                get(f"{server.url}/away")
                back.until_end()
                assert back.cleanly
                assert not back.events


def test_lost_history_of_a_finished_channel_is_the_opening_and_the_end(hub: Hub) -> None:
    hub.publish("job", "state", key="k")
    hub.finish("job")
    with connect(hub.stream("job"), last_event_id="1-1") as viewer:
        events = [event.event for event in viewer]
    assert events == ["stream-reset", "message", "stream-open", "stream-end"]


def test_a_reopened_channel_does_not_end_a_stream_with_the_others(hub: Hub) -> None:
    with connect(hub.stream("job", "news")) as viewer:
        next(viewer)
        hub.finish("job")
        assert next(viewer).event == "stream-end"
        hub.reopen("job")
        hub.publish("job", "again")
        hub.finish("news")
        assert [event.event for event in islice(viewer, 2)] == ["message", "stream-end"]
        hub.publish("job", "still here")
        assert next(viewer).data == "still here"


def test_names_that_begin_with_stream_are_the_hubs() -> None:
    with Hub() as hub:
        for name in ("stream-open", "stream-end", "stream-anything"):
            with pytest.raises(ValueError, match="own"):
                hub.publish("news", "x", event=name)
        hub.publish("news", "x", event="streaming")


def test_without_hub_events_a_client_gets_their_ids_alone(hub: Hub) -> None:
    hub.publish("job", "state", key="k")
    stream = hub.stream("job", hub_events=False)
    with connect(stream) as viewer:
        until(lambda: viewer.read() and b"id:" in viewer.body)
        assert viewer.body.endswith(f"data: state\n\nid: {hub.position()}\n\n".encode())
        event = hub.publish("job", "word")
        removal = hub.remove("job", "k")
        end = hub.finish("job")
        body = viewer.read_all()
    assert removal is not None
    assert end is not None
    assert b"event:" not in body
    assert body.endswith(
        f"data: word\nid: {event.id}\n\nid: {removal.id}\n\nid: {end.id}\n\n".encode()
    )
    for seen in (event.id, removal.id, end.id):  # What came after it is the hub's own.
        with connect(stream, last_event_id=seen) as viewer:
            assert viewer.status == 204
    with connect(stream, last_event_id="1-1") as viewer:
        assert viewer.status == 410
        assert b"no longer there" in viewer.read_all()


def test_without_hub_events_a_client_that_has_all_replayed_gets_nothing_of_them(hub: Hub) -> None:
    stream = hub.stream("job", hub_events=False, replay="all")
    one = hub.publish("job", "one")
    with connect(stream) as viewer:
        until(lambda: viewer.read() and b"id:" in viewer.body)
        hub.publish("job", "state", key="k")
        hub.remove("job", "k")
        two = hub.publish("job", "two")
        hub.finish("job")
        body = viewer.read_all()
    blocks = body.decode().split("\n\n")
    assert [block.split("\n")[-2:] for block in blocks if "state" not in block] == [
        ["data: one", f"id: {one.id}"],
        ["data: two", f"id: {two.id}"],
        [""],
    ]
    with connect(stream, last_event_id=two.id) as viewer:
        assert viewer.status == 204
    with connect(stream, last_event_id=one.id) as viewer:
        assert b"data: two" in viewer.read_all()
    with connect(stream, last_event_id="1-1") as viewer:
        assert viewer.status == 410


@pytest.mark.parametrize("path", ["/", "/passing/"])
def test_under_gunicorn_a_finished_channel_ends_its_streams_with_their_last_chunk(
    path: str,
) -> None:
    with gunicorn(APP) as server:
        url = f"{server.url}{path}"
        with (
            Client(f"{url}?channel=job", version="1.1") as one,
            Client(f"{url}?channel=job&channel=news", version="1.1") as two,
            Client(f"{url}quiet/?channel=job", version="1.1") as quiet,
        ):
            one.wait(1)
            two.wait(1)
            quiet.until_body(b"id:")
            get(f"{server.url}/publish?channel=job&data=last")
            end = get(f"{server.url}/finish?channel=job")
            for client in (one, quiet):
                client.until_end()
                assert client.cleanly
                assert b"data: last" in client.body
                assert client.body.endswith(f"id: {end}\n\n".encode())
            assert b"stream-end" not in quiet.body
            two.wait(3)
            get(f"{server.url}/finish?channel=news")
            two.until_end()
            assert two.cleanly
        with Client(f"{url}?channel=job", headers={"Last-Event-ID": end}) as back:
            assert back.status == 204
        with Client(f"{url}?channel=job", version="1.1") as new:
            new.until_end()
            assert new.cleanly
            assert [event.event for event in new.events] == ["stream-open", "stream-end"]
        until(lambda: inside_of(server) == 0)


@pytest.mark.parametrize("path", ["/", "/passing/"])
def test_a_client_that_knows_no_hub_events_is_cut_off_where_the_producer_fails(path: str) -> None:
    with gunicorn(APP) as server:
        url = f"{server.url}{path}"
        with (
            Client(f"{url}?channel=job", version="1.1") as one,
            Client(f"{url}quiet/?channel=job", version="1.1") as quiet,
            Client(f"{url}quiet/?channel=job&channel=news", version="1.1") as two,
        ):
            one.wait(1)
            quiet.until_body(b"id:")
            two.until_body(b"id:")
            get(f"{server.url}/fail?channel=job&data=last")
            for client in (one, quiet):
                client.until_end()
                assert b"data: last" in client.body
            assert one.cleanly
            assert '"failed"' in one.events[-1].data
            assert not quiet.cleanly
            get(f"{server.url}/finish?channel=news")
            two.until_end()
            assert not two.cleanly, "one of its channels was broken off"
        with Client(f"{url}quiet/?channel=job", version="1.1") as new:
            new.until_end()
            assert not new.cleanly
        seen = {"Last-Event-ID": one.events[-2].id}
        with Client(f"{url}quiet/?channel=job", headers=seen) as back:
            assert back.status == 204


def inside_of(server: object) -> int:
    return inside(server)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["/quiet/", "/passing/quiet/"])
def test_a_stream_without_hub_events_is_cut_when_its_server_ends(path: str) -> None:
    with gunicorn(APP) as server, Client(f"{server.url}{path}", version="1.1") as client:
        client.until_body(b"id:")
        server.stop()
        client.until_end()
        assert not client.cleanly


@pytest.mark.parametrize("path", ["/", "/passing/"])
def test_a_lagging_client_of_a_finished_channel_gets_all_of_it_before_the_end(path: str) -> None:
    with gunicorn(APP) as server, Client(f"{server.url}{path}", version="1.1") as client:
        client.wait(1)
        for first in range(0, 600, 50):
            data = "&".join(f"data={n}." for n in range(first, first + 50))
            get(f"{server.url}/publish?padding=4000&{data}")
        get(f"{server.url}/finish")
        client.until_end()
        assert client.cleanly
        numbers = [event.data.split(".")[0] for event in client.events[1:-1]]
        assert numbers == [str(n) for n in range(600)]
        assert client.events[-1].event == "stream-end"
