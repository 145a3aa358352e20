"""Settings for gunicorn: ``gunicorn -c python:ssekit.gunicorn wsgi:app``, or to import in others.

Streaming works with ``gunicorn -k gevent wsgi:app`` and nothing else said.  What is set here is
room for many streams: gunicorn would accept 1,000 connections per worker and leave any further
client without an answer, and most systems let a process open 1,024 descriptors unless it asks.
"""

from __future__ import annotations

import resource
from typing import Any

bind = "127.0.0.1:8000"
worker_class = "gevent"
worker_connections = 10_000


def post_fork(_server: Any, worker: Any) -> None:
    """Let the worker open as many descriptors as the system allows it."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        worker.log.warning("the limit of open files could not be raised: %s", error)
