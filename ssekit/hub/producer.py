"""Work that outlives its viewers: one producer a channel, and its end whatever becomes of it.

`Producer` is a ``with`` block around work that the caller does; `start` does it in the background.
The log knows who produces a channel, so that a second one is refused on whichever machine it is,
and a lease (`ssekit.hub.lease`) shows that it is alive.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any

from ssekit import host
from ssekit.brokers import Broker
from ssekit.errors import BrokerUnavailable, Cancelled, ChannelBusy, ChannelFinished, HubClosed
from ssekit.host import wsgi_servers
from ssekit.host.counting import Counts
from ssekit.hub.entries import FAILED, LOST, end_body, event_of
from ssekit.hub.lease import Leases
from ssekit.wire import Event

log = logging.getLogger("ssekit.hub")

CANCELLED_CHECKED = 0.25
"""Seconds for which an answer whether a channel was cancelled is good."""


class Producer:
    """The one producer of a channel; made by ``Hub.producer``.

    Leaving the block finishes the channel; an exception finishes it with the reason "failed" and
    is passed on.
    """

    def __init__(
        self,
        broker: Broker,
        leases: Leases,
        channel: str,
        encode: Callable[[Any, str | None, int | None], bytes],
        counts: Counts,
    ) -> None:
        self._counts = counts
        self.channel = channel
        self._broker = broker
        self._leases = leases
        self._encode = encode
        self._holder: str | None = None  # None outside the block
        self._cancelled = False
        self._asked_at = -CANCELLED_CHECKED

    def __enter__(self) -> Producer:
        """Become the channel's producer.

        Raises `ChannelBusy` if it has one, `ChannelFinished` if it is finished.
        """
        if self._holder is not None:
            raise ChannelBusy(self.channel)
        holder = self._leases.hold()
        try:
            self._broker.produce(self.channel, holder)
        except BaseException:
            self._leases.release()
            raise
        self._holder = holder
        self._leases.producing[self.channel] = self
        return self

    def send(
        self,
        data: Any,
        event: str | None = None,
        retry: int | None = None,
        *,
        key: str | None = None,
    ) -> Event:
        """Publish an event in the channel, and return it with its id.

        ``data`` may be an `Event`, whose name and retry then count.  Raises `Cancelled` if the
        channel was cancelled, `ChannelFinished` if it was finished otherwise, and what
        ``Hub.publish`` raises.
        """
        began = time.perf_counter()
        try:
            body = self._encode(data, event, retry)
            self._check()
            entry = self._broker.append(self.channel, body, key=key, holder=self._holder)
        except BaseException as error:
            self._counts.not_published(error)
            if not isinstance(error, ChannelFinished) or error.reason != "cancelled":
                raise
            self._cancelled = True
            raise Cancelled(f"the channel {self.channel!r} was cancelled") from error
        self._counts.published(self.channel, time.perf_counter() - began)
        return event_of(entry)

    @property
    def cancelled(self) -> bool:
        """Whether the channel was cancelled: the work may stop."""
        now = time.monotonic()
        if not self._cancelled and now - self._asked_at >= CANCELLED_CHECKED:
            self._asked_at = now
            status = self._broker.status(self.channel)
            self._cancelled = status.state == "finished" and status.reason == "cancelled"
        return self._cancelled

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            reason = "finished"
        elif host.failed(error):
            reason = FAILED
        else:
            reason = LOST  # The process is ending, or the work was ended from outside.
        self._finish(reason)

    def _finish(self, reason: str) -> None:
        holder, self._holder = self._holder, None
        if self._leases.producing.get(self.channel) is self:
            del self._leases.producing[self.channel]
        try:
            if holder is not None and not self._leases.closed:
                body = end_body(self.channel, reason)
                self._broker.finish(self.channel, body, reason, holder=holder)
        finally:
            self._leases.release()

    def _check(self) -> None:
        # The log knows this process's lease, and not which producer of this process sends.
        if self._holder is None or self._leases.producing.get(self.channel) is not self:
            raise ChannelFinished(self.channel, None)


def start(producer: Producer, function: Callable[..., Any], arguments: tuple[Any, ...]) -> bool:
    """Send what a function returns or yields, in the background of this process.

    Does nothing and returns false if the channel has a producer or is finished.
    """
    if wsgi_servers.in_master():
        raise RuntimeError(
            "Hub.start was called in the server's master process, whose workers are forked later:"
            " call it in a worker, as while a request is answered"
        )
    try:
        producer.__enter__()
    except (ChannelBusy, ChannelFinished):
        return False

    def run() -> None:
        try:
            with _entered(producer):
                _send_all(producer, function(*arguments))
        except (Cancelled, ChannelFinished) as error:
            log.info("the work for a channel has stopped: %s", error)
        except (BrokerUnavailable, HubClosed) as error:
            log.warning("the work for the channel %r has stopped: %s", producer.channel, error)
        except Exception:
            log.exception("the work for the channel %r failed", producer.channel)

    try:
        host.begin(run, "ssekit-producer")
    except BaseException as error:
        producer.__exit__(type(error), error, None)
        raise
    return True


class _entered:  # noqa: N801 - a block, as `contextlib.closing` is
    """The block of a producer that was entered already."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: Any) -> None:
        self._producer.__exit__(*error)


def _send_all(producer: Producer, items: Any) -> None:
    if isinstance(items, Event | str | Mapping) or not isinstance(items, Iterable):
        items = [items]
    try:
        for item in items:
            if item is not None:
                producer.send(item)
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()
