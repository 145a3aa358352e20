"""A hub: publish anywhere, and every viewer gets it, once and in order.

The hub ties three things that do not know each other: a broker, which keeps the log; the tail, by
which this process reads it; and streams, whose source is a subscription.  It is the one door by
which events enter.
"""

from __future__ import annotations

import logging
import os
import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ssekit import brokers, host
from ssekit.errors import HubClosed, InvalidEvent
from ssekit.host.state import state_folder
from ssekit.host.wakeup import NativeLock
from ssekit.hub.follower import Tail
from ssekit.hub.subscription import RESERVED, Subscription
from ssekit.stream.admission import Limit
from ssekit.stream.blocks import Blocks, Opener
from ssekit.stream.open import OpenStream
from ssekit.stream.response import last_event_id as last_event_id_of
from ssekit.stream.stream import Stream
from ssekit.wire import Event

if TYPE_CHECKING:
    from ssekit.hub.fanout import Fanout

__all__ = ["Hub", "default_url"]

log = logging.getLogger("ssekit.hub")

_NOT_IN_A_CHANNEL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # controls, and no text


def default_url() -> str:
    """Return the hub of this user: ``SSEKIT_URL``, or one sqlite file in the state folder.

    Workers, scripts and the command line that say nothing else then share it.  The folder is made
    for this user alone; it is never the current folder.
    """
    url = os.environ.get("SSEKIT_URL")
    if url:
        return url
    return f"sqlite:///{quote(os.fsencode(state_folder()))}/hub.db"


class Hub:
    """Channels of events, kept in a log that ``url`` names.

    ``memory:`` is one process; ``sqlite:///relative.db`` and ``sqlite:////absolute.db`` are every
    process of one machine; ``redis://host:port/db?stream=name``, ``rediss://`` and ``unix://`` are
    many machines.  ``history`` counts the events that the log keeps, of all channels together.
    ``max_streams`` caps the streams of this hub in one process, ``max_per_address`` those of one
    client address (see `ssekit.stream.admission.Limit`); whoever comes too many is told to come
    back later.

    Nothing is opened before the first use, and anything may be used from any process and thread.
    Raises ValueError for another URL.
    """

    def __init__(
        self,
        url: str = "memory:",
        *,
        history: int = 1000,
        max_streams: int | None = None,
        max_per_address: int | None = None,
    ) -> None:
        self.limit = Limit(max_streams, max_per_address)
        self._broker = brokers.connect(url, history)
        self._history = history
        self._memory = url.startswith("memory:")
        self._warned = False
        self._closed = False
        self._tail: Tail | None = None
        self._lock = NativeLock()  # held for moments, by any thread

    def publish(
        self, channel: str, data: Any, event: str | None = None, retry: int | None = None
    ) -> Event:
        """Store an event, and return it with its id: every viewer of the channel gets it.

        The fields are those of `Event`.  Raises `InvalidEvent` before anything is stored for what
        the format cannot carry, and for the names ``stream-open`` and ``stream-reset``, which are
        the hub's own; ValueError for a channel that is none; `BrokerUnavailable` if the log cannot
        be reached or written, when the event was stored at most once; `HubClosed` after `close`.
        """
        self._check_open()
        _check_channel(channel)
        if isinstance(event, str) and event in RESERVED:
            raise InvalidEvent(f"the event name {event!r} is the hub's own")
        if data is None:
            raise InvalidEvent("an event without data reaches nobody; publish an empty str")
        stored = self._broker.append(channel, Event(data, event, None, retry))
        self._let_read(stored)
        return stored

    def _let_read(self, stored: Event) -> None:
        """Wait for this process's own reading, should it be half of what the log keeps behind.

        Under gevent nothing else runs while somebody publishes in a loop, and its viewers would
        lose what is trimmed meanwhile.
        """
        tail = self._tail
        if tail is None or tail.away:
            return
        epoch, seq = brokers.parse_id(stored.id or "")
        deadline = time.monotonic() + 1.0
        while tail.lags(epoch, seq - self._history // 2) and time.monotonic() < deadline:
            time.sleep(0.001)

    def subscribe(self, *channels: str, last_event_id: str | None = None) -> Subscription:
        """Return an iterator of the events of some channels, from ``last_event_id`` on or from now.

        It waits for events, and in a stream's source it ends with the stream.  ``close()`` ends it.
        """
        return self.view(_checked(channels), last_event_id)

    def view(self, channels: frozenset[str], last_event_id: str | None) -> Subscription:
        """Return a subscription to channels that were checked."""
        return Subscription(self._reading(), self._broker, channels, last_event_id)

    def stream(self, *channels: str, **options: Any) -> Stream:
        """Return a WSGI application that streams some channels to each client.

        The options are those of `Stream`.  A client that comes back gets exactly what it missed.
        """
        return Stream(_Channels(self, _checked(channels)), **options)

    def close(self) -> None:
        """End every stream and subscription of this process, and let go of the log."""
        with self._lock:
            self._closed = True
            tail, self._tail = self._tail, None
        if tail is not None:
            tail.close()
        self._broker.close()

    def fanout(self) -> Fanout | None:
        """Return what serves taken connections, where the server under us lets it."""
        tail = self._tail
        if tail is None or os.environ.get("SSEKIT_FANOUT") == "off" or not host.under_gevent():
            return None
        from ssekit.hub.fanout import Fanout

        if not isinstance(tail.listener, Fanout):
            tail.listener = Fanout(tail.ring)
        return tail.listener

    def warn_if_alone(self, environ: dict[str, Any]) -> None:
        """Say once if this hub is in one process's memory and the server has several processes."""
        if self._memory and environ.get("wsgi.multiprocess") and not self._warned:
            self._warned = True
            from ssekit.brokers.memory import first_of_its_server

            if first_of_its_server():
                log.warning(
                    "this hub is memory: and the server runs more than one process: what one of "
                    "them publishes does not reach the viewers of the others; use "
                    "Hub('sqlite:///hub.db')"
                )

    def _reading(self) -> Tail:
        with self._lock:
            self._check_open()
            # A thread does not survive a fork.
            if self._tail is None or self._tail.process != os.getpid():
                self._tail = Tail(self._broker, self._history)
            tail = self._tail
        tail.start()
        return tail

    def _check_open(self) -> None:
        if self._closed:
            raise HubClosed("the hub is closed")


class _Channels(Opener):
    """Opens a stream of some channels of a hub."""

    def __init__(self, hub: Hub, channels: frozenset[str]) -> None:
        self.limit = hub.limit
        self._hub = hub
        self._channels = channels

    def open(self, environ: dict[str, Any]) -> Blocks:
        self._hub.warn_if_alone(environ)
        view = self._hub.view(self._channels, last_event_id_of(environ))
        return _SubscriptionBlocks(self._hub, view)


class _SubscriptionBlocks(Blocks):
    """The blocks of a subscription, until the fan-out serves its client instead."""

    def __init__(self, hub: Hub, subscription: Subscription) -> None:
        self._hub: Hub | None = hub  # None if the server cannot hand the client over
        self._subscription = subscription

    def next_block(self, client: host.Client) -> tuple[int, bytes]:
        return self._subscription.block(client)

    def take_over(self, stream: OpenStream) -> bool:
        """Move the client to the fan-out, if it can go there and has caught up with the ring."""
        if self._hub is None or stream.connection is None:
            return False
        fanout = self._hub.fanout()
        if fanout is None or not fanout.can_take(stream.connection, stream.client.given):
            self._hub = None
            return False
        if not self._subscription.settle():
            return False
        try:
            fanout.take(stream.connection, stream, self._subscription)
        except OSError as error:
            log.warning("a stream could not be taken over, and keeps its greenlet: %s", error)
            self._hub = None
            return False
        self._subscription.close()
        return True

    def close(self, client: host.Client) -> None:
        self._subscription.close()


def _checked(channels: tuple[str, ...]) -> frozenset[str]:
    if not channels:
        raise ValueError("name at least one channel")
    for channel in channels:
        _check_channel(channel)
    return frozenset(channels)


def _check_channel(channel: str) -> None:
    if not isinstance(channel, str) or not channel or _NOT_IN_A_CHANNEL.search(channel):
        raise ValueError(
            f"a channel is a non-empty str without control characters, not {channel!r:.80}"
        )
