"""Settings for gunicorn: room for many streams, for all of them at once, and on all workers.

Streaming works with ``gunicorn -k gevent mysite:app`` and no other setting.  But gunicorn then
accepts 1,000 connections per worker and leaves any further client without an answer, most systems
let a process open 1,024 descriptors unless it asks for more, and streams that come one after the
other pile up on one worker.
"""

from __future__ import annotations

import resource
from typing import Any

from ssekit.gunicorn.signals import exit_on_signals

bind = "127.0.0.1:8000"
worker_class = "ssekit.gunicorn.worker.Worker"
worker_connections = 10_000
# After a restart all clients come back at once.  The kernel cuts this to net.core.somaxconn, 4096
# on most systems: what is beyond it waits for a second or more, or is refused.
backlog = 16_384


def post_fork(_server: Any, worker: Any) -> None:
    """Let a worker end from its first moment on, and open as many descriptors as it may."""
    exit_on_signals()
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        worker.log.warning("cannot raise the limit of open files: %s", error)
