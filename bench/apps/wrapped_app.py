"""`bench.apps.hub_app` inside middleware that passes every block on, which ssekit cannot know."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any

from bench.apps import hub_app


def _passing(blocks: Any) -> Iterator[bytes]:
    with closing(blocks):
        yield from blocks


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Stream ``/events/CHANNEL``, follow a schedule on ``/publish``, answer anything else."""
    answer = hub_app.app(environ, start_response)
    return _passing(answer) if environ["PATH_INFO"].startswith("/events") else answer
