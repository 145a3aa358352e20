"""A gevent worker of gunicorn's that looks once a minute, instead of a second, whether to end."""

from __future__ import annotations

import gevent
from gunicorn.workers.ggevent import GeventWorker


class SeldomLooking(GeventWorker):  # type: ignore[misc]
    def notify(self) -> None:
        super().notify()
        gevent.sleep(60)
