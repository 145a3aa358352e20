"""What is kept of a request, once its stream has left the server."""

from __future__ import annotations

from typing import Any

from ssekit.stream import kept as module
from ssekit.stream.kept import kept, kept_path, restored


def request(**own: Any) -> dict[str, Any]:
    """As a server makes it: no two requests have an object in common."""
    return {
        "PATH_INFO": "".join(["/", "clock"]),
        "HTTP_ACCEPT": "text/event-stream",
        "wsgi.version": (1, 0),
        "wsgi.multithread": True,
        "wsgi.input": object(),
        "wsgi.errors": object(),
        "gunicorn.socket": object(),
        "QUERY_STRING": "",
        "RAW_URI": "/clock",
        **own,
    }


def test_clients_share_what_they_send_alike() -> None:
    first = kept(request(REMOTE_PORT="1000", HTTP_COOKIE="session=1"))
    second = kept(request(REMOTE_PORT="1001", HTTP_COOKIE="session=2", QUERY_STRING=""))
    assert first[0] is second[0]
    assert restored(first)["HTTP_COOKIE"] == "session=1"
    assert restored(second)["REMOTE_PORT"] == "1001"


def test_a_query_is_the_clients_own() -> None:
    first, second = (
        kept(request(QUERY_STRING=f"user={name}", RAW_URI=f"/clock?user={name}")) for name in "ab"
    )
    assert first[0] is second[0]
    assert restored(first)["RAW_URI"] == "/clock?user=a"
    assert restored(second)["QUERY_STRING"] == "user=b"


def test_an_object_of_a_middleware_is_kept_for_its_client_alone() -> None:
    session, routing = object(), ((), {"name": "clock"})
    mine = kept(request(**{"beaker.session": session, "wsgiorg.routing_args": routing}))
    assert mine[0] is kept(request())[0]
    assert restored(mine)["beaker.session"] is session
    assert restored(mine)["wsgiorg.routing_args"] is routing


def test_what_was_the_servers_is_gone_and_the_rest_is_there() -> None:
    environ = restored(kept(request()))
    assert environ["wsgi.input"].read() == b""
    environ["wsgi.errors"].write("")
    assert "gunicorn.socket" not in environ
    assert environ["PATH_INFO"] == "/clock"
    assert environ["wsgi.version"] == (1, 0)


def test_what_clients_choose_to_send_fills_no_memory() -> None:
    for number in range(module._MOST + 10):
        kept(request(HTTP_USER_AGENT=str(number)))
        kept_path(f"/{number}")
    assert max(len(module._environs), len(module._paths)) <= module._MOST
