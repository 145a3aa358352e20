"""gunicorn's settings with a worker that needs long to begin, and says when it does.

``WORKER`` in the environment: "ours", or "plain" for gunicorn's own with our `post_fork`.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from gunicorn.workers.ggevent import GeventWorker

from ssekit import gunicorn
from ssekit.gunicorn.worker import Worker


class Slow:
    def patch(self) -> None:
        Path(os.environ["BEGINS"]).touch()
        time.sleep(30)


class Ours(Slow, Worker):
    pass


class Plain(Slow, GeventWorker):  # type: ignore[misc]
    pass


if os.environ["WORKER"] == "ours":
    worker_class = Ours
else:
    worker_class, post_fork = Plain, gunicorn.post_fork
