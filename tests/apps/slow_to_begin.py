"""gunicorn's settings with a worker that needs long to begin, and says when it does."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ssekit.gunicorn.worker import Worker


class SlowToBegin(Worker):
    def patch(self) -> None:
        Path(os.environ["BEGINS"]).touch()
        time.sleep(30)


worker_class = SlowToBegin
