"""A source in a greenlet of its own, beside the server's, which takes its items one by one.

It is for what stands between a stream and its client and changes bytes: a heartbeat then has to go
through it as a block, also while the source sleeps.
"""

from __future__ import annotations

import contextvars
from collections.abc import Iterator
from typing import Any

import gevent
from gevent.queue import Channel, Empty

from ssekit.host.client import DISCONNECTED, Client, Ended


class Pump:
    """Runs a source in a greenlet of its own, and hands its items over one by one."""

    def __init__(self, client: Client, items: Iterator[Any]) -> None:
        self._channel = Channel()
        self._error: BaseException | None = None
        self._wanted = True
        context = contextvars.copy_context()
        self._greenlet = gevent.spawn(context.run, self._run, client, items)

    def _run(self, client: Client, items: Iterator[Any]) -> None:
        try:
            while True:
                item = Client.pull(client, items)
                self._channel.put((item, None))
        except BaseException as error:
            # Raised again by `take`, in the stream's greenlet, which knows what it means.
            self._error = error
        finally:
            Client.close(client, items)
        if self._wanted:  # Else nobody would ever take it, and the greenlet would stay forever.
            self._channel.put((None, self._error))

    def take(self, seconds: float) -> Any:
        """Return the next item, or None if there is none after ``seconds``."""
        try:
            item, error = self._channel.get(timeout=seconds)
        except Empty:
            return None
        if error is not None:
            raise error
        return item

    def stop(self) -> None:
        self._wanted = False
        if not self._greenlet.dead:
            self._greenlet.kill(Ended(DISCONNECTED), block=False)
