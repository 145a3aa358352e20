"""Carries a log's new frames to every viewer that stands at its head, with one send for each.

Under gunicorn's gevent worker a hub's stream needs nobody to wait for it.  Once the server has sent
the headers, the connection's descriptor is duplicated and the server is told that its answer is
complete: its greenlet and all that hangs on it is gone, and what is left of a viewer is a
descriptor and a few numbers.

Viewers of the same channels with the same framing are a *group*, and stand at the log's head
together: a new frame is framed once and written to each, and who has it is not noted, because
position belongs to the group.  A write that the kernel does not take makes that viewer a cursor
that lags: it reads on from the ring, in large pieces, whenever its socket can take more, and joins
its group again at the head.  One that falls off the ring is closed; its client comes back with
``Last-Event-ID`` and reads from the broker.  Nobody has a queue.

The hub hands viewers over and otherwise does not know this module; whoever cannot be taken (other
middleware around the stream, TLS in the server, another server) is served by iterating.
"""

from __future__ import annotations

import os
import struct
import sys
import time
from array import array
from collections.abc import Sequence
from typing import Any

import gevent

from ssekit import host
from ssekit.brokers import Entry
from ssekit.host.batch_send import GONE, prepare, write_to_each
from ssekit.host.chunks import LAST_CHUNK, chunk
from ssekit.host.connection import Connection, plain
from ssekit.host.eventloop import loop_of_process
from ssekit.host.tcp import Tcp, patience
from ssekit.hub.recent import Ring
from ssekit.hub.subscription import Subscription
from ssekit.stream.open import OpenStream, log_ended
from ssekit.stream.response import closing_retry
from ssekit.wire import HEARTBEAT

UNSENT = 16 * 1024
"""Bytes that the kernel holds for a viewer beyond what is on its way (TCP_NOTSENT_LOWAT).

Without a bound a reader that stops absorbs 4 MB of kernel memory; the log's ring has it anyway.
"""
SLOW = "too slow"
LOOK = 1.0
"""Seconds between two looks at whether the hosts of lagging viewers still answer."""


class Group:
    """Viewers of the same channels, with the same framing and heartbeat, at the head of the log."""

    __slots__ = (
        "_descriptors",
        "bytes",
        "channels",
        "chunked",
        "events",
        "fanout",
        "head",
        "heartbeat",
        "members",
        "wrote_at",
    )

    def __init__(
        self, fanout: Fanout, channels: frozenset[str], chunked: bool, heartbeat: float
    ) -> None:
        self.fanout = fanout
        self.channels = channels
        self.chunked = chunked
        self.heartbeat = heartbeat
        self.head: dict[int, Viewer] = {}
        self._descriptors: array[int] | None = None  # of the head, while nobody joins or parts
        self.members = 0  # those who lag included
        self.wrote_at = time.monotonic()
        self.events = 0
        self.bytes = 0

    def join(self, viewer: Viewer) -> None:
        """Put the viewer to the head."""
        self.head[viewer.descriptor] = viewer
        self._descriptors = None

    def part(self, viewer: Viewer) -> bool:
        """Take the viewer from the head; false if it is not there."""
        self._descriptors = None
        return self.head.pop(viewer.descriptor, None) is not None

    def descriptors(self) -> array[int]:
        """Return those of the viewers at the head."""
        if self._descriptors is None:
            self._descriptors = array("i", struct.pack(f"{len(self.head)}i", *self.head))
        return self._descriptors

    def beat(self) -> None:
        """Send a heartbeat to all at the head, who had the last event together."""
        self.fanout.send(self, HEARTBEAT)

    def framed(self, block: bytes) -> bytes:
        return chunk(block, self.chunked)


class Lag:
    """What a viewer behind the head has besides: where it is, and what it is being sent."""

    __slots__ = ("position", "rest", "watcher")

    def __init__(self, position: int, rest: memoryview) -> None:
        self.position = position
        self.rest = rest
        self.watcher: Any = None  # made once the socket has not taken all


class Viewer:
    """One client whose connection was taken over.

    ``events`` and ``bytes`` are kept as differences from the group's while it stands at the head,
    so that a delivery has nothing to count.
    """

    __slots__ = (
        "admission",
        "began",
        "bytes",
        "descriptor",
        "events",
        "fanout",
        "group",
        "lag",
        "path",
        "retry",
    )

    def __init__(self, fanout: Fanout, group: Group, descriptor: int, stream: OpenStream) -> None:
        self.fanout = fanout
        self.group = group
        self.descriptor = descriptor
        self.lag: Lag | None = None
        self.admission = stream.admission
        self.path = sys.intern(stream.path)
        self.retry = stream.retry
        self.began = stream.began
        self.events = stream.events
        self.bytes = stream.client.given

    def disconnected(self) -> None:
        """The client has disconnected."""
        self.fanout.end(self, host.DISCONNECTED)


class Fanout:
    """All taken viewers of one hub in one process; lives in the process's event loop."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._groups: dict[tuple[frozenset[str], bool, float], Group] = {}
        self._listening: dict[str, list[Group]] = {}  # by channel
        self._lagging: set[Viewer] = set()
        self._looked_at = 0.0
        self._count = 0
        self._loop = loop_of_process()
        self._events = gevent.get_hub().loop
        prepare()

    def __len__(self) -> int:
        return self._count

    @staticmethod
    def can_take(connection: Connection, given: int) -> bool:
        """Tell whether the bytes that we write reach the client as the next of its stream."""
        return connection.can_abandon and plain(connection.socket) and connection.direct(given)

    def take(
        self,
        connection: Connection,
        stream: OpenStream,
        subscription: Subscription,
    ) -> None:
        """Take the connection over from the server.

        The viewer is sent first what the subscription has read, and then what comes behind its
        position.  Raises OSError, with nothing changed, if the process has no descriptor left.
        """
        descriptor = os.dup(connection.socket.fileno())
        pending = subscription.pending()
        block = b"".join(event.encode() for event in pending)
        group = self._group(subscription.channels, connection.chunked, stream.client.heartbeat)
        viewer = Viewer(self, group, descriptor, stream)
        viewer.events += len(pending)
        viewer.bytes += len(block)
        stream.admission.release()
        connection.abandon()
        group.members += 1
        if not self._count:
            self._loop.add_group(self)
        self._count += 1
        self._loop.ends_with(connection)
        self._loop.disconnects.watch(viewer.descriptor, viewer)
        with Tcp(viewer.descriptor) as tcp:
            tcp.bound_unsent(UNSENT)
        rest = memoryview(group.framed(block) if block else b"")
        self._lag(viewer, subscription.position, rest)
        self._resume(viewer)

    def deliver(self, entries: Sequence[Entry]) -> None:
        """Send the log's newest entries, which the ring has just taken, to all at the head."""
        batches: dict[Group, list[bytes]] = {}
        for entry in entries:
            for group in self._listening.get(entry.channel, ()):
                batches.setdefault(group, []).append(entry.frame)
        for group, frames in batches.items():
            group.events += len(frames)
            self.send(group, b"".join(frames))

    def send(self, group: Group, block: bytes) -> None:
        data = group.framed(block)
        others = write_to_each(group.descriptors(), data)
        group.bytes += len(block)
        group.wrote_at = time.monotonic()
        for descriptor, count in others.items():
            viewer = group.head[descriptor]
            if count == GONE:
                self.end(viewer, host.DISCONNECTED)
            else:
                self._watch(viewer, self._lag(viewer, self._ring.end, memoryview(data)[count:]))

    def _lag(self, viewer: Viewer, position: int, rest: memoryview) -> Lag:
        """Make the viewer a cursor at ``position`` that has yet to be sent ``rest``."""
        if self._leave_head(viewer):
            with Tcp(viewer.descriptor) as tcp:
                tcp.wait_for_answers(0)
        viewer.lag = lag = Lag(position, rest)
        self._lagging.add(viewer)
        return lag

    def _resume(self, viewer: Viewer) -> None:
        """Send a lagging viewer what its socket takes; at the end of the log it joins the head."""
        lag = viewer.lag
        if lag is None:
            return
        if not lag.rest and not self._refill(viewer, lag):
            return
        try:
            written = os.write(viewer.descriptor, lag.rest)
        except BlockingIOError:
            written = 0
        except OSError:
            self.end(viewer, host.DISCONNECTED)
            return
        lag.rest = lag.rest[written:]
        if lag.rest or self._refill(viewer, lag):
            self._watch(viewer, lag)

    def _watch(self, viewer: Viewer, lag: Lag) -> None:
        """Resume once the viewer's socket can take more."""
        if lag.watcher is None:
            lag.watcher = self._events.io(viewer.descriptor, 2)
            lag.watcher.start(self._resume, viewer)

    def _refill(self, viewer: Viewer, lag: Lag) -> bool:
        """Read the next piece from the ring; false if there is none, and the viewer has moved."""
        ring = self._ring
        if lag.position < ring.start:
            self.end(viewer, SLOW)
            return False
        while lag.position < ring.end:
            piece = ring.piece(viewer.group.channels, lag.position)
            lag.position = piece.position
            if piece.events:
                viewer.events += piece.events
                viewer.bytes += len(piece.block)
                lag.rest = memoryview(viewer.group.framed(piece.block))
                return True
        self._join_head(viewer)
        return False

    def _join_head(self, viewer: Viewer) -> None:
        self._stop_lagging(viewer)
        group = viewer.group
        viewer.events -= group.events
        viewer.bytes -= group.bytes
        group.join(viewer)
        with Tcp(viewer.descriptor) as tcp:
            tcp.wait_for_answers(patience(group.heartbeat))

    def _leave_head(self, viewer: Viewer) -> bool:
        group = viewer.group
        if not group.part(viewer):
            return False
        viewer.events += group.events
        viewer.bytes += group.bytes
        return True

    def _stop_lagging(self, viewer: Viewer) -> None:
        if viewer.lag is not None:
            if viewer.lag.watcher is not None:
                viewer.lag.watcher.stop()
                viewer.lag.watcher.close()
            viewer.lag = None
            self._lagging.discard(viewer)

    def end(self, viewer: Viewer, why: str) -> None:
        """Close a viewer's connection, with its closing_retry where that can still be said."""
        group = viewer.group
        between_events = viewer.lag is None or not viewer.lag.rest
        self._leave_head(viewer)
        self._stop_lagging(viewer)
        self._loop.disconnects.forget(viewer.descriptor)
        if why == host.ENDING and between_events:
            last = group.framed(closing_retry(viewer.retry)) + (
                LAST_CHUNK if group.chunked else b""
            )
            try:
                os.write(viewer.descriptor, last)
            except OSError:
                why = host.DISCONNECTED
        os.close(viewer.descriptor)
        group.members -= 1
        if not group.members:
            self._forget(group)
        self._count -= 1
        viewer.admission.end()
        log_ended(viewer.path, viewer.began, viewer.events, viewer.bytes, why)
        if not self._count:
            self._loop.remove_group(self)

    def restart(self) -> None:
        """End every stream: the ring has begun anew, and where they stood means nothing any more.

        The clients come back with their last ids, and are told what became of their history.
        """
        self.end_all()

    def end_all(self) -> None:
        """End every stream; called when the process or the hub ends."""
        for group in list(self._groups.values()):
            for viewer in list(group.head.values()):
                self.end(viewer, host.ENDING)
        for viewer in list(self._lagging):
            self.end(viewer, host.ENDING)

    def tick(self, now: float) -> None:
        """Look now and then whether the hosts of lagging viewers still answer."""
        if now - self._looked_at >= LOOK:
            self._looked_at = now
            for viewer in list(self._lagging):
                with Tcp(viewer.descriptor) as tcp:
                    silent_for = tcp.silent_for()
                if silent_for > patience(viewer.group.heartbeat):
                    self.end(viewer, host.DISCONNECTED)

    def _group(self, channels: frozenset[str], chunked: bool, heartbeat: float) -> Group:
        key = (channels, chunked, heartbeat)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(self, *key)
            self._loop.heartbeats.add(group)
            for channel in channels:
                self._listening.setdefault(channel, []).append(group)
        return group

    def _forget(self, group: Group) -> None:
        self._loop.heartbeats.discard(group)
        del self._groups[group.channels, group.chunked, group.heartbeat]
        for channel in group.channels:
            groups = self._listening[channel]
            groups.remove(group)
            if not groups:
                del self._listening[channel]
