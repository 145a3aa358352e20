"""Carries a log's new frames to every client that is caught up, with one send for each.

Under gunicorn's gevent worker a hub's stream needs nothing that waits for it.  Once the server has
sent the headers, the connection's descriptor is duplicated and the server is told that its answer
is complete: its greenlet and all that hangs on it is gone, and what remains of a client is a
descriptor and a few numbers, a `Viewer`.

Viewers of the same channels with the same framing are a `ViewerGroup`.  Those that are caught up
are at the end of the log together: a new frame is framed once and written to each, and who has it
is not noted, because position belongs to the group.  A write that the kernel does not take all of
makes that viewer a position that lags, until it has caught up (`ssekit.hub.lagging`).  There are no
queues.  A viewer that comes is sent the opening of its stream and what it has missed in one write.

A stream hands its client over to this module, which otherwise no part of the hub knows.  A client
that cannot be taken over (other middleware around the stream, TLS in the server, another server) is
served by iterating.
"""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from posix import close  # Under gevent os.close() only closes at the event loop's next turn.

import gevent

from ssekit import host
from ssekit.brokers import Entry
from ssekit.host.batch_send import GONE, prepare, write_to_each
from ssekit.host.chunks import LAST_CHUNK
from ssekit.host.connection import Connection, plain
from ssekit.host.eventloop import loop_of_process
from ssekit.host.tcp import (
    bound_unsent,
    has_sent_all,
    patience,
    silent_for,
    wait_for_answers,
)
from ssekit.host.turns import wait_for_next_turn
from ssekit.hub.follower import Follower
from ssekit.hub.lagging import DELIVERY_FAILED, LaggingViewers
from ssekit.hub.pieces import FINISHED, View
from ssekit.hub.reader import Reader
from ssekit.hub.viewers import Batch, Kind, Viewer, ViewerGroup
from ssekit.stream.open import OpenStream, log_ended
from ssekit.stream.response import closing_retry
from ssekit.wire import HEARTBEAT

UNSENT = 16 * 1024
"""Bytes that the kernel holds for a viewer beyond what is on its way (TCP_NOTSENT_LOWAT).

Without a bound a reader that stops absorbs 4 MB of kernel memory; the log has it anyway.
"""
COUNTED = 0.25
"""Seconds between two times at which it is counted what was sent."""
SILENCE_CHECKED = 1.0
"""Seconds between two checks whether the hosts of slow viewers still answer."""
AT_ONCE = 1000
"""Viewers that are sent an event within one turn of the event loop."""
PART = 256
"""Of more than that, those that are sent to between two looks at the clock."""
SLICE = 0.02
"""Seconds of the event loop's time that a delivery to them takes in a turn."""
CHECKED_AT_ONCE = 1000
"""Viewers that have just caught up and are looked at in one check, so that it stays short."""


class Fanout:
    """All viewers of one hub in one process; lives in the process's event loop."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self._recent = follower.recent
        self._groups: dict[tuple[View, bool, float], ViewerGroup] = {}  # by their kind
        self._listening: dict[str, list[ViewerGroup]] = {}  # by channel
        self._lagging = LaggingViewers(follower, self._caught_up, self.end)
        self._draining: set[Viewer] = set()  # caught up, with bytes that its host has not taken
        self._checked_at = self._settled_at = 0.0
        self._count = 0
        self._counts = follower.counts
        self._tally = follower.tally
        self._owner: object = None  # keeps the hub as long as there are viewers
        self._loop = loop_of_process()
        self._events = gevent.get_hub().loop
        prepare()

    def __len__(self) -> int:
        return self._count

    @staticmethod
    def can_take(connection: Connection, given: int) -> bool:
        """Return whether the bytes that we write reach the client as the next of its stream."""
        return connection.can_abandon and plain(connection.socket) and connection.direct(given)

    def take(
        self, connection: Connection, stream: OpenStream, reader: Reader, owner: object
    ) -> Callable[[str], None]:
        """Take a client over from the server, and return what ends its stream with a reason.

        It is sent first what the reader has ready, and then what comes after its position.
        ``owner`` is kept as long as there are viewers.  Raises with nothing changed if any step
        fails.
        """
        kind = (reader.view, connection.chunked, stream.heartbeat)
        group = self._groups.get(kind) or ViewerGroup(Kind(*kind), self)
        socket = connection.socket
        descriptor = os.dup(socket.fileno())
        try:
            viewer = Viewer(group, descriptor, stream)
            bound_unsent(socket, UNSENT)
            self._loop.disconnects.watch(descriptor, viewer)
            head = connection.abandon()
        except BaseException:
            self._loop.disconnects.forget(descriptor)
            close(descriptor)
            raise
        # From here on nothing fails: a client that cannot be written to has left.
        self._owner = owner
        self._loop.ends_with(connection)
        stream.admission.release()
        self._count_in(viewer)
        self._counts.add("taken over")
        self._begin(viewer, reader, head, stream.opening)
        return viewer.stop

    def end_from_any_thread(self, viewer: Viewer, why: str) -> None:
        """Have a viewer's stream ended, now or in the event loop's next turn."""
        # From another thread than the event loop's it has to wait for its turn.
        if gevent.get_hub().loop is self._events:
            self.end(viewer, why)
        else:
            self._events.run_callback_threadsafe(self.end, viewer, why)

    def _begin(self, viewer: Viewer, reader: Reader, head: bytes, opening: bytes) -> None:
        """Send a viewer the head, the opening, and what it has missed: nearly always all of it."""
        group, epoch, position = viewer.group, reader.epoch, reader.position
        for end in reader.ended.values():
            group.note_end(end, position)
        piece = reader.take_ready()
        if piece is None and self._recent.holds(epoch, position) and position < self._recent.end:
            piece = self._recent.piece(group.view, position)
        first, missed = head + group.framed(opening), b""
        if piece is not None:
            epoch, position = piece.epoch, piece.position
            missed = piece.framed(group.kind.chunked)
            self._lagging.count(viewer, piece)
        try:
            written = os.writev(viewer.descriptor, (first, missed))
        except BlockingIOError:
            written = 0
        except OSError:
            self.end(viewer, host.DISCONNECTED)
            return
        if (
            written < len(first) + len(missed)
            or position != self._recent.end
            or epoch != self._recent.epoch
        ):
            self._lagging.add(viewer, epoch, position, _rest_of(first, missed, written))
            self._lagging.give_turn(viewer)
        elif group.finished_by(position):
            self.end(viewer, group.why_finished)
        else:
            self._caught_up(viewer)

    def deliver(self, entries: Sequence[Entry]) -> None:
        """Send the log's newest entries to all that are caught up."""
        batches: dict[ViewerGroup, list[Entry]] = {}
        for entry in entries:
            for group in self._listening.get(entry.channel, ()):
                batches.setdefault(group, []).append(entry)
        if self._counts.channels:
            self._count_by_channel(entries)
        if sum(len(group.caught_up) for group in batches) > AT_ONCE:
            self._deliver_in_turns(batches)
            return
        for group, some in batches.items():
            self._tally.events += len(some) * len(group.caught_up)
            self._send(group, group.batch(some), len(some))
            self._note_ends(group, some)

    def _deliver_in_turns(self, batches: Mapping[ViewerGroup, Sequence[Entry]]) -> None:
        """Send to very many, in slices of time between which others have their turns.

        This is the follower's greenlet, which reads on in the log when all have this.
        """
        for group in batches:
            group.expect()
        until = time.monotonic() + SLICE
        try:
            for group, some in batches.items():
                self._tally.events += len(some) * len(group.lacking or ())
                batch = group.batch(some)
                group.count(len(some), batch.size)
                while group.lacking:
                    self._write(group, batch, group.take_lacking(PART))
                    if time.monotonic() >= until:
                        wait_for_next_turn()
                        until = time.monotonic() + SLICE
                group.lacking = None
                self._note_ends(group, some)
        finally:
            for group in batches:
                group.lacking = None

    def _note_ends(self, group: ViewerGroup, entries: Sequence[Entry]) -> None:
        group.note_ends(entries)
        if group.finished_by(self._recent.end):
            for viewer in list(group.caught_up.values()):
                self.end(viewer, group.why_finished)

    def _count_by_channel(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if entry.channel in self._counts.channels:
                groups = self._listening.get(entry.channel, ())
                viewers = sum(len(group.caught_up) for group in groups)
                self._tally.by_channel[entry.channel] += viewers

    def _send(self, group: ViewerGroup, batch: Batch, events: int = 0) -> None:
        group.count(events, batch.size)
        self._write(group, batch, group.descriptors())

    def _write(self, group: ViewerGroup, batch: Batch, descriptors: array[int]) -> None:
        if not batch.data:
            return
        self._tally.bytes += batch.size * len(descriptors)
        others = write_to_each(descriptors, batch.data)
        group.wrote_at = time.monotonic()
        for descriptor, taken in others.items():
            viewer = group.caught_up[descriptor]
            if taken == GONE:
                self.end(viewer, host.DISCONNECTED)
            else:
                rest, position = batch.rest(taken, self._recent.end)
                self._lag(viewer, self._recent.epoch_at(position), position, rest)
                self._lagging.watch(viewer)

    def send_heartbeat(self, group: ViewerGroup) -> None:
        """Send a heartbeat to those of a group that are caught up."""
        self._send(group, Batch(group.framed(HEARTBEAT), len(HEARTBEAT), []))

    def _lag(self, viewer: Viewer, epoch: int, position: int, rest: memoryview) -> None:
        """Have a viewer that was caught up read on from a position, after it is sent ``rest``."""
        self._draining.discard(viewer)
        if viewer.group.discard(viewer):
            wait_for_answers(viewer.descriptor, 0)
        self._lagging.add(viewer, epoch, position, rest)

    def _caught_up(self, viewer: Viewer) -> None:
        """A viewer is at the end of the log, and goes on with its group."""
        viewer.group.add(viewer)
        # Not until its host has taken everything: one that reads slowly is not one that is gone.
        self._draining.add(viewer)

    def end(self, viewer: Viewer, why: str) -> None:
        """Close a viewer's connection, with its closing retry where that can still be said."""
        if viewer.descriptor < 0:
            return  # It has ended meanwhile, and its descriptor may be another's by now.
        group = viewer.group
        between_events = viewer.lag is None or not viewer.lag.rest
        group.discard(viewer)
        self._draining.discard(viewer)
        self._lagging.discard(viewer)
        self._loop.disconnects.forget(viewer.descriptor)
        if between_events and why not in (host.DISCONNECTED, DELIVERY_FAILED):
            last = b"" if why == FINISHED else group.framed(closing_retry(viewer.retry))
            if group.kind.chunked and (why == FINISHED or not viewer.cuts):
                last += LAST_CHUNK
            try:
                os.write(viewer.descriptor, last)
            except OSError:
                why = host.DISCONNECTED
        close(viewer.descriptor)
        viewer.descriptor = -1
        viewer.admission.end()
        self._count_out(viewer)
        self._counts.add("taken over", -1)
        self._counts.ended(why)
        log_ended(viewer.path, viewer.began, viewer.events, viewer.bytes, why, about=viewer.about)

    def _count_in(self, viewer: Viewer) -> None:
        group = viewer.group
        if not group.members:
            self._groups[group.kind] = group
            self._loop.heartbeats.add(group)
            for channel in group.view.channels:
                self._listening.setdefault(channel, []).append(group)
        group.members += 1
        if not self._count:
            self._loop.add_group(self)
            self._tally.later = True
        self._count += 1

    def _count_out(self, viewer: Viewer) -> None:
        group = viewer.group
        group.members -= 1
        if not group.members:
            self._loop.heartbeats.discard(group)
            del self._groups[group.kind]
            for channel in group.view.channels:
                groups = self._listening[channel]
                groups.remove(group)
                if not groups:
                    del self._listening[channel]
        self._count -= 1
        if not self._count:
            self._loop.remove_group(self)
            self._tally.later = False
            self._tally.settle()
            self._owner = None

    def restart(self, epoch: int, position: int) -> None:
        """The recent entries begin anew: those caught up read on from where they are."""
        for group in list(self._groups.values()):
            for viewer in list(group.caught_up.values()):
                self._lag(viewer, epoch, position, memoryview(b""))
                self._lagging.give_turn(viewer)

    def end_all(self) -> None:
        """End every stream; called when the process or the hub ends."""
        for group in list(self._groups.values()):
            for viewer in list(group.caught_up.values()):
                self.end(viewer, host.ENDING)
        for viewer in list(self._lagging):
            self.end(viewer, host.ENDING)

    def tick(self, now: float) -> None:
        """Have it counted what was sent, and see whether the hosts of slow viewers still answer.

        The kernel sees that for the others, once they have taken everything.
        """
        if now - self._settled_at >= COUNTED:
            self._settled_at = now
            self._tally.settle()
        if now - self._checked_at < SILENCE_CHECKED:
            return
        self._checked_at = now
        for viewer in [*self._lagging, *islice(self._draining, CHECKED_AT_ONCE)]:
            wait = patience(viewer.group.heartbeat)
            if not has_sent_all(viewer.descriptor):
                if silent_for(viewer.descriptor) > wait:
                    self.end(viewer, host.DISCONNECTED)
            elif viewer in self._draining:
                self._draining.discard(viewer)
                wait_for_answers(viewer.descriptor, wait)


def _rest_of(first: bytes, missed: bytes, written: int) -> memoryview:
    """Return what is left of two blocks, of which so many bytes were written.

    The second is shared, and is not copied for a client that has begun with it.
    """
    if written < len(first):
        return memoryview(first + missed)[written:]
    return memoryview(missed)[written - len(first) :]
