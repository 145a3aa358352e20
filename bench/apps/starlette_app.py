"""sse-starlette as its examples have it: an EventSourceResponse over a queue for each client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from bench.apps.schedule import Schedule

_clients: set[asyncio.Queue[ServerSentEvent]] = set()


async def _events() -> AsyncIterator[ServerSentEvent]:
    mine: asyncio.Queue[ServerSentEvent] = asyncio.Queue()
    _clients.add(mine)
    try:
        while True:
            yield await mine.get()
    finally:
        _clients.discard(mine)


async def events(request: Request) -> EventSourceResponse:
    """Stream what is published from now on."""
    return EventSourceResponse(_events())


async def publish(request: Request) -> PlainTextResponse:
    """Put each event into every client's queue."""
    schedule = Schedule(request.url.query)
    for wait, sequences in schedule.turns():
        await asyncio.sleep(wait)
        for sequence in sequences:
            event = ServerSentEvent(schedule.data(sequence), id=f"1750000000000-{sequence}")
            for client in _clients:
                client.put_nowait(event)
        while any(not client.empty() for client in _clients):
            await asyncio.sleep(0)
    return PlainTextResponse("ok\n")


app = Starlette(routes=[Route("/events", events), Route("/publish", publish)])
