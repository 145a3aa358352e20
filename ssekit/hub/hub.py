"""A hub: publish anywhere, and every viewer gets it, once and in order.

The hub ties things that do not know each other: a broker, which keeps the log; the follower, by
which this process reads it; readers, which are positions in it; and streams.  It is the one door
by which events enter.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from time import perf_counter
from types import TracebackType
from typing import Any, Literal
from urllib.parse import quote

from ssekit import brokers
from ssekit.brokers import Entry, Status
from ssekit.errors import InvalidEvent
from ssekit.host.counting import Counts
from ssekit.host.state import state_folder
from ssekit.hub import producer
from ssekit.hub.access import Access
from ssekit.hub.arguments import (
    check_channel,
    check_key,
    checked_channels,
    checked_presence,
    checked_replay,
    retention_of,
)
from ssekit.hub.counters_file import counters_file
from ssekit.hub.endpoint import Endpoint
from ssekit.hub.entries import OWN, body_of_data, end_body, event_of, events_of, removal_body
from ssekit.hub.gate import Authorize, Gate
from ssekit.hub.grant import member_of
from ssekit.hub.opened import Opened
from ssekit.hub.pieces import View
from ssekit.hub.presence import Presence, members_channel, members_in
from ssekit.hub.producer import Producer
from ssekit.hub.reader import Reader
from ssekit.hub.revocations import revocation
from ssekit.hub.stats import Stats, stats_of
from ssekit.hub.stream import Channels
from ssekit.hub.subscription import Subscription
from ssekit.stream.admission import Limit
from ssekit.stream.stream import Stream
from ssekit.wire import Event

__all__ = ["Hub", "default_url"]

log = logging.getLogger("ssekit.hub")

MAX_EVENT = 1024 * 1024
"""Bytes of one event by default; with resuming, a larger one would be sent again and again."""


def default_url() -> str:
    """Return the hub of this user: ``SSEKIT_URL``, or one sqlite file in the state folder.

    Workers, scripts and the command line that say nothing else then share it.  The folder is made
    for this user alone; it is never the current folder.  Raises OSError or RuntimeError if the user
    has no such folder and it cannot be made.
    """
    url = os.environ.get("SSEKIT_URL")
    if url:
        return url
    return f"sqlite:///{quote(os.fsencode(state_folder()))}/hub.db"


class Hub:
    """Channels of events, kept in a log that ``url`` names.

    ``memory:`` is one process; ``sqlite:///relative.db`` and ``sqlite:////absolute.db`` are every
    process of one machine; ``redis://host:port/db?stream=name``, ``rediss://`` and ``unix://`` are
    many machines.

    What the log keeps belongs to the log.  The hub that creates it writes it there; later only
    arguments that are given change it.

    ``history``: the events that each channel keeps (1,000).
    ``capacity``: the events of all channels together; beyond it the channel with the most gives up
    its oldest, and a ``history`` above it raises it (100,000).
    ``max_keys``: the keys of one channel (10,000).
    ``max_age``: seconds for which events without a key are kept (as long as there is room;
    ``math.inf`` says so to a log that has another).

    ``max_event``: the bytes of one event; a larger one is refused.
    ``max_streams`` bounds the streams of this hub in each process, ``max_per_address`` those of one
    client address (see `ssekit.stream.admission.Limit`).  Clients over the limit are told to come
    back later.

    ``on_outage``: what becomes of the streams of `endpoint` while the log, and with it revocations,
    cannot be read: "keep" lets open ones go on, "end" ends them and rejects new ones until it is
    back.

    Nothing is opened before the first use, and anything may be used from any process and thread.
    ``with Hub(...) as hub:`` closes it at the end; a hub that is dropped is closed as well.  Raises
    ValueError for another URL or value.
    """

    def __init__(
        self,
        url: str = "memory:",
        *,
        history: int | None = None,
        capacity: int | None = None,
        max_keys: int | None = None,
        max_age: float | None = None,
        max_streams: int | None = None,
        max_per_address: int | None = None,
        max_event: int = MAX_EVENT,
        on_outage: Literal["keep", "end"] = "keep",
    ) -> None:
        if not isinstance(max_event, int) or max_event < 1:
            raise ValueError(f"max_event must be bytes from 1 up, not {max_event!r}")
        self.counts = Counts(counters_file(url))
        self.limit = Limit(max_streams, max_per_address, self.counts)
        retention = retention_of(
            history=history, capacity=capacity, max_keys=max_keys, max_age=max_age
        )
        self._broker = brokers.connect(url, retention)
        if on_outage not in ("keep", "end"):
            raise ValueError(f'on_outage is "keep" or "end", not {on_outage!r}')
        self._opened = Opened(self._broker, self.counts, ends_in_outage=on_outage == "end")
        self._max_event = max_event
        self._memory = url.startswith("memory:")
        self._warned = False
        weakref.finalize(self, self._opened.close).atexit = False

    def __enter__(self) -> Hub:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # -- publishing

    def publish(
        self,
        channel: str,
        data: Any,
        event: str | None = None,
        retry: int | None = None,
        *,
        key: str | None = None,
        store: bool = True,
        connection: object = None,
    ) -> Event:
        """Store an event, and return it with its id: every viewer of the channel gets it.

        The fields are those of `Event`.  With a ``key`` it replaces the channel's earlier event of
        that key, and is kept until it is replaced or removed.  With ``store=False`` the viewers
        that are caught up get it, without an id, and nobody later.

        With a ``connection`` to the database of a ``postgresql:`` log it is stored by the commit of
        that connection's transaction, or never; it is returned without an id, which it gets then.
        It may be psycopg's, Django's or SQLAlchemy's, or an SQLAlchemy session; in autocommit
        outside a transaction it is a ValueError.

        Raises `InvalidEvent`, before anything is stored, for what the format cannot carry, what is
        larger than ``max_event``, names that begin with ``stream-``, which are the hub's own, and
        one key more than ``max_keys``; ValueError for an invalid channel or key, or a key with
        ``store=False``; `ChannelFinished` if the channel is finished; `BrokerUnavailable` if the
        log cannot be reached or written, when the event was stored at most once; `HubClosed` after
        `close`.
        """
        self._opened.check()
        check_channel(channel)
        if key is not None:
            check_key(key)
            if not store:
                raise ValueError("an event with a key is the key's state, so it has to be stored")
        began = perf_counter()
        try:
            body = self._encode(data, event, retry)
            if connection is None:
                entry = self._broker.append(channel, body, key=key, passing=not store)
            else:
                self._broker.append_in(connection, channel, body, key=key, passing=not store)
                entry = Entry("", channel, body, key, passing=True)  # without an id
        except BaseException as error:
            self.counts.not_published(error)
            raise
        self._opened.count_published(channel, perf_counter() - began)
        if connection is None:
            self._opened.published(entry.id)
        return event_of(entry)

    def is_in_database_of(self, connection: object) -> bool:
        """Return whether `publish` takes a connection: it is to the database that the log is in.

        That is a ``postgresql:`` log, which need not have been created.  Raises TypeError for what
        is no connection, `BrokerUnavailable` and `HubClosed`.
        """
        self._opened.check()
        return self._broker.is_in_database_of(connection)

    def remove(self, channel: str, key: str) -> Event | None:
        """Remove a key's event, and tell the viewers: return that event, ``stream-remove``.

        None if the channel has no such key.  Raises as `publish` does.
        """
        self._opened.check()
        check_channel(channel)
        check_key(key)
        return self._published(self._broker.remove(channel, key, removal_body(channel, key)))

    # -- streams and subscriptions

    def stream(
        self,
        *channels: str,
        replay: int | Literal["all"] = 0,
        hub_events: bool = True,
        member: str | tuple[str, object] | None = None,
        presence: bool = False,
        **stream_options: Any,
    ) -> Stream:
        """Return a WSGI application that streams some channels to each client.

        A client that comes back gets exactly what it missed.  A new one gets the newest event of
        each key, and the last ``replay`` events without a key.  ``hub_events=False`` is for clients
        that cannot ignore events whose names they do not know: they get none of the hub's own, but
        their ids in blocks without data; with ``replay="all"`` not even these.  Such a stream is
        cut off, unless its channels are finished and no producer of theirs has failed or was lost.

        ``member``: who is present in the channels while the stream is open: an id, or a pair of an
        id and a JSON value of at most 1 KiB, which is shown to the others.  With ``presence`` the
        client gets ``stream-join`` and ``stream-leave`` of all members; the opening has those who
        are there.

        The other options are those of `Stream`.  Raises ValueError for an invalid channel or value,
        and what `Stream` raises.
        """
        opener = Channels(
            self._follower,
            self.limit,
            checked_channels(channels),
            replay=checked_replay(replay),
            hub_events=hub_events,
            presence=checked_presence(presence, hub_events),
            present=self._presence,
            member=member_of(member),
            check=self._warn_if_alone,
        )
        return Stream(opener, **stream_options)

    def endpoint(
        self,
        authorize: Authorize,
        *,
        replay: int | Literal["all"] = 0,
        hub_events: bool = True,
        presence: bool = False,
        authorizing: int = 32,
        max_age: float = 86_400,
        **stream_options: Any,
    ) -> Stream:
        """Return a WSGI application that streams to each client what it may read.

        ``authorize`` gets the `werkzeug.Request` and returns a `Grant`, or None, which is answered
        401; it may raise an HTTP exception.  If it fails, the client is told to come back.
        ``?channel=``, which may be repeated, names fewer channels than the grant has.  The stream
        ends when the grant expires, and with `disconnect` and `revoke`.

        ``authorizing``: clients that are authorized at once; others wait for their turn.
        ``max_age``: seconds after which a grant that says when it was issued is refused; `revoke`
        with a longer ``keep`` needs a longer one.
        Members are those of the grants.  The other options are those of `stream`.  Raises
        ValueError for an invalid value.
        """
        view = partial(
            Channels,
            self._follower,
            self.limit,
            replay=checked_replay(replay),
            hub_events=hub_events,
            presence=checked_presence(presence, hub_events),
            present=self._presence,
            check=self._warn_if_alone,
        )
        opener = Endpoint(
            self._access,
            view,
            authorize,
            Gate(authorizing),
            limit=self.limit,
            max_age=max_age,
            origins=stream_options.get("origins", ()),
            cuts=not hub_events,
        )
        return Stream(opener, **stream_options)

    def disconnect(
        self,
        *,
        subject: str | None = None,
        session: str | None = None,
        channel: str | None = None,
    ) -> None:
        """End the streams of `endpoint` that match all that is given, in every process.

        Their clients may come back, and are authorized again.  While the log cannot be reached that
        is logged and tried again.  Raises ValueError if nothing is given, `BrokerUnavailable` if
        1,000 wait for the log already, and `HubClosed` after `close`.
        """
        self._opened.revocations().write(revocation(subject, session, channel, None))

    def revoke(
        self,
        *,
        subject: str | None = None,
        session: str | None = None,
        channel: str | None = None,
        keep: float = 86_400,
        before: float | None = None,
    ) -> None:
        """End streams as `disconnect` does, and refuse every grant that was issued before now.

        ``before`` names another time, in seconds since 1970, such as one in the near future for a
        session that is about to be deleted.  That holds for ``keep`` seconds; older credentials are
        refused by the endpoint's ``max_age``.  A grant that does not say when it was issued is
        refused.  Raises as `disconnect` does, and ValueError for an invalid ``keep``.
        """
        self._opened.revocations().write(revocation(subject, session, channel, keep, before))

    def subscribe(
        self,
        *channels: str,
        last_event_id: str | None = None,
        timeout: float | None = None,
        replay: int | Literal["all"] = 0,
    ) -> Subscription:
        """Return an iterator of the events of some channels, after ``last_event_id`` or from now.

        From now begins as a stream does: with the newest event of each key and the last ``replay``
        events without one, and then ``stream-open``.

        It waits for events, and in a stream's source it ends with the stream.  ``close()`` ends it.
        It raises TimeoutError after ``timeout`` seconds without an event.  Each event has its
        ``channel`` and ``key``.
        """
        view = View(checked_channels(channels))
        reader = Reader(self._follower(), view, last_event_id, checked_replay(replay))
        return Subscription(self, reader, timeout)

    # -- what the log has

    def position(self) -> str:
        """Return the log's end now: an id to begin a stream or a subscription after.

        Take it before you read the state that you render; what comes after it is not missed.
        Raises `BrokerUnavailable` and `HubClosed`.
        """
        self._opened.check()
        return self._broker.tip()

    def history(self, *channels: str, limit: int = 100, before: str | None = None) -> list[Event]:
        """Return the last events without a key, up to ``limit``, oldest first.

        ``before`` is an id: the events are then the last ones before it.  Raises
        `ssekit.brokers.HistoryLost` if it is not an id of this log.
        """
        self._opened.check()
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
            raise ValueError(f"limit must be a whole number from 1 up, not {limit!r}")
        return events_of(self._broker.history(checked_channels(channels), limit, before))

    def state(self, channel: str) -> dict[str, Event]:
        """Return the newest event of each key of a channel, by key, oldest first.

        Raises ValueError for an invalid channel, `BrokerUnavailable` and `HubClosed`.
        """
        self._opened.check()
        entries = self._broker.opening(checked_channels((channel,)), 0).state
        return {str(entry.key): event_of(entry) for entry in entries}

    def members(self, channel: str) -> dict[str, Any]:
        """Return who is present in a channel: the value of each member, by id.

        Raises ValueError for an invalid channel, and `BrokerUnavailable` and `HubClosed` as
        `publish` does.
        """
        check_channel(channel)
        self._opened.leases()  # which end those of processes that have died
        return members_in(self._broker.opening([members_channel(channel)], 0).state)

    def status(self, channel: str) -> Status:
        """Return whether a channel is "open", "producing" or "finished", and why it is finished.

        The reason is "finished", "failed", "lost" or "cancelled".  Raises ValueError for an invalid
        channel, `BrokerUnavailable` and `HubClosed`.
        """
        self._opened.leases()
        check_channel(channel)
        return self._broker.status(channel)

    # -- ends and producers

    def finish(self, channel: str, data: Any = None) -> Event | None:
        """Finish a channel: its last event is ``stream-end``, which is returned.

        Streams whose channels are all finished end after it.  None if it is finished already.
        Raises as `publish` does.
        """
        self._opened.check()
        check_channel(channel)
        return self._end(channel, "finished", data)

    def reopen(self, channel: str) -> bool:
        """Open a finished channel again; false if it is not finished.

        Raises ValueError for an invalid channel, `BrokerUnavailable` and `HubClosed`.
        """
        self._opened.check()
        check_channel(channel)
        return self._broker.reopen(channel)

    def producer(self, channel: str) -> Producer:
        """Return a block for work whose events a channel gets, and which ends with the block.

        ``with hub.producer(channel) as out: out.send(...)``.  Entering it raises `ChannelBusy` if
        the channel has a producer, and `ChannelFinished` if it is finished.
        """
        check_channel(channel)
        return Producer(
            self._broker, self._opened.leases(), channel, self._encode_item, self.counts
        )

    def start(self, channel: str, function: Callable[..., Any], *arguments: Any) -> bool:
        """Produce a channel in the background of this process, and return whether that has begun.

        The channel gets what ``function(*arguments)`` returns or yields.  Does nothing if it has a
        producer or is finished, so that a page that is reloaded never starts the work twice.

        Raises RuntimeError in a server's master process, before its workers are forked.
        """
        return producer.start(self.producer(channel), function, arguments)

    def cancel(self, channel: str) -> bool:
        """Finish a channel with the reason "cancelled"; false if it is finished already.

        Its producer's next ``send`` raises `Cancelled`, in whichever process it is.
        """
        self._opened.check()
        check_channel(channel)
        return self._end(channel, "cancelled", None) is not None

    def stats(self) -> Stats:
        """Return what is going on: in this process, and in all of this server that use the log.

        Those are the processes of this machine whose hub has the same URL.  Where the log cannot be
        reached, its end and how far processes are behind it are None.  Raises `HubClosed` after
        `close`.
        """
        self._opened.check()
        return stats_of(self._broker, self.counts)

    def close(self) -> None:
        """End every stream and subscription of this process, and close the log.

        May be called again; raises nothing.
        """
        self._opened.close()

    def _end(self, channel: str, reason: str, data: Any) -> Event | None:
        body = end_body(channel, reason, data, self._max_event)
        return self._published(self._broker.finish(channel, body, reason))

    def _published(self, entry: Entry | None) -> Event | None:
        if entry is None:
            return None
        self.counts.add("published")
        self._opened.published(entry.id)
        return event_of(entry)

    def _encode(self, data: Any, event: str | None, retry: int | None) -> bytes:
        if isinstance(event, str) and str.__str__(event).startswith(OWN):
            raise InvalidEvent(f"the event name {event!r} is the hub's own, as all {OWN}... are")
        if data is None:
            raise InvalidEvent("clients ignore an event without data; publish an empty str")
        return body_of_data(data, event, retry, self._max_event)

    def _encode_item(self, data: Any, event: str | None, retry: int | None) -> bytes:
        if isinstance(data, Event):
            return self._encode(data.data, event or data.event, retry or data.retry)
        return self._encode(data, event, retry)

    # Bound methods of ours are what streams have of us: they keep the hub alive.
    def _follower(self) -> Any:
        return self._opened.follower()

    def _access(self) -> Access:
        return self._opened.access()

    def _presence(self) -> Presence:
        return self._opened.presence()

    def _warn_if_alone(self, environ: Mapping[str, Any]) -> None:
        """Say once if this hub is in one process's memory and the server has several processes."""
        if self._memory and environ.get("wsgi.multiprocess") and not self._warned:
            self._warned = True
            log.warning(
                "this hub is memory: and the server runs more than one process: what one of them"
                " publishes does not reach the viewers of the others; use"
                " Hub('sqlite:///hub.db')"
            )
