"""Settings for gunicorn: ``gunicorn -c python:ssekit.gunicorn mysite:app``, or import them.

Streaming works with ``gunicorn -k gevent mysite:app`` without any setting.  These settings make
room for many streams: by default gunicorn accepts 1,000 connections per worker and leaves further
clients without an answer, and most systems let a process open 1,024 descriptors unless it asks for
more.
"""

from __future__ import annotations

import resource
from typing import Any

bind = "127.0.0.1:8000"
worker_class = "gevent"
worker_connections = 10_000


def post_fork(_server: Any, worker: Any) -> None:
    """Let the worker open as many descriptors as the system allows."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        worker.log.warning("cannot raise the limit of open files: %s", error)
