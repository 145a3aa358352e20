"""Log lines are written beside the event loop: no handler disturbs a stream, and none is lost."""

from __future__ import annotations

import signal
from contextlib import ExitStack

from tests.clients import Client
from tests.servers import Server, gunicorn
from tests.waiting import until

APP = "tests.apps.slow_logs:app"


def open_and_written(server: Server) -> list[int]:
    with Client(f"{server.url}/open") as client:
        return [int(word) for word in client.until_end().split()]


def leave(server: Server, count: int) -> None:
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(Client(server.url)).wait(1)


def test_a_slow_handler_keeps_no_ended_stream_counted_and_holds_no_event_back() -> None:
    with gunicorn(APP) as server, Client(server.url) as staying:
        leave(server, 6)
        until(lambda: open_and_written(server)[0] == 1)
        assert open_and_written(server)[1] < 6, "the handler was to be still writing"
        numbers = [int(event.data) for event in staying.wait(20)]
        # A handler's 0.5 s would skip nine ticks each time; a busy machine skips some.
        assert numbers == sorted(set(numbers))
        assert numbers[-1] < 40
        until(lambda: open_and_written(server)[1] == 6)
        assert server.log.count("ended='client disconnected'") == 6


def test_lines_beyond_the_bound_are_counted_and_the_count_is_logged() -> None:
    with gunicorn(APP, env={"MOST": "2"}) as server:
        leave(server, 8)
        lost = until(lambda: "log lines were lost" in server.log and server.log)
        told = [line for line in lost.splitlines() if "log lines were lost" in line]
        count = sum(int(line.split()[0]) for line in told)
        assert count + server.log.count("ended=") == 8


def test_lines_that_wait_when_the_process_ends_are_written_or_counted() -> None:
    with gunicorn(APP) as server:
        leave(server, 6)
        server.stop(signal.SIGTERM)
        lines = server.log.splitlines()
    (lost,) = [int(line.split()[1]) for line in lines if "lines were lost at exit" in line]
    assert lost + sum("ended=" in line for line in lines) == 6
