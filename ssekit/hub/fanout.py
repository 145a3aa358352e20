"""Carries a log's new frames to every client that is caught up, with one send for each.

Under gunicorn's gevent worker a hub's stream needs nothing that waits for it.  Once the server has
sent the headers, the connection's descriptor is duplicated and the server is told that its answer
is complete: its greenlet and all that hangs on it is gone, and what remains of a client is a
descriptor and a few numbers, a `Viewer`.

Viewers of the same channels with the same framing are a `ViewerGroup`.  Those that are caught up
are at the end of the log together: a new frame is framed once and written to each, and who has it
is not noted, because position belongs to the group.  A write that the kernel does not take all of
makes that viewer a position that lags.  It reads on whenever its socket can take more, from the
recent entries and from the broker what is older, in pieces that it shares with others at the same
position, until it has caught up.  There are no queues.  Lagging viewers have their turns in slices
of the event loop's time, so that requests and new events go on meanwhile.

A stream hands its client over to this module, which otherwise no part of the hub knows.  A client
that cannot be taken over (other middleware around the stream, TLS in the server, another server) is
served by iterating.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from posix import close  # Under gevent os.close() only closes at the event loop's next turn.

import gevent

from ssekit import host
from ssekit.brokers import Entry, HistoryLost
from ssekit.errors import BrokerUnavailable, HubClosed
from ssekit.host.backoff import jittered
from ssekit.host.batch_send import GONE, prepare, write_to_each
from ssekit.host.chunks import LAST_CHUNK
from ssekit.host.connection import Connection, plain
from ssekit.host.eventloop import loop_of_process
from ssekit.host.logs import Logger
from ssekit.host.tcp import Tcp, patience
from ssekit.hub.entries import is_end
from ssekit.hub.follower import Follower
from ssekit.hub.older import AT_ONCE, Position
from ssekit.hub.reader import RETRY, Reader
from ssekit.hub.recent import FINISHED, Piece
from ssekit.hub.viewers import Batch, Kind, Lag, Viewer, ViewerGroup
from ssekit.stream.open import OpenStream, log_ended
from ssekit.stream.response import closing_retry
from ssekit.wire import HEARTBEAT

log = Logger("ssekit.hub")

UNSENT = 16 * 1024
"""Bytes that the kernel holds for a viewer beyond what is on its way (TCP_NOTSENT_LOWAT).

Without a bound a reader that stops absorbs 4 MB of kernel memory; the log has it anyway.
"""
SLOW = "too slow"
FAILED = "delivery failed"
SILENCE_CHECKED = 1.0
"""Seconds between two checks whether the hosts of slow viewers still answer."""
CHECKED_AT_ONCE = 1000
"""Viewers that have just caught up and are looked at in one check, so that it stays short."""
SLICE = 0.005
"""Seconds of the event loop's time that lagging viewers get at once."""


class Fanout:
    """All viewers of one hub in one process; lives in the process's event loop."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self._recent = follower.recent
        self._groups: dict[Kind, ViewerGroup] = {}
        self._listening: dict[str, list[ViewerGroup]] = {}  # by channel
        self._lagging: set[Viewer] = set()
        self._due: deque[Viewer] = deque()  # lagging viewers whose turn has come
        self._serving = False
        self._wanted: dict[Position, list[Viewer]] = {}  # older pieces, and who waits for them
        self._unread: deque[Position] = deque()  # of them, those that nobody reads yet
        self._reading = 0
        self._draining: set[Viewer] = set()  # caught up, with bytes that its host has not taken
        self._checked_at = 0.0
        self._count = 0
        self._counts = follower.counts
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
        kind = Kind(reader.view, connection.chunked, stream.client.heartbeat)
        group = self._groups.get(kind) or ViewerGroup(kind, self._send_heartbeat)
        descriptor = os.dup(connection.socket.fileno())
        try:
            viewer = Viewer(group, descriptor, stream, self.end)
            with Tcp(descriptor) as tcp:
                tcp.bound_unsent(UNSENT)
            self._loop.disconnects.watch(descriptor, viewer)
            connection.abandon()
        except BaseException:
            self._loop.disconnects.forget(descriptor)
            close(descriptor)
            raise
        # From here on nothing fails: what is to be written is written in the event loop.
        self._owner = owner
        self._loop.ends_with(connection)
        stream.admission.release()
        self._count_in(viewer)
        self._counts.add("taken over")
        self._begin(viewer, reader)
        return partial(self._end_open, viewer)

    def _end_open(self, viewer: Viewer, why: str) -> None:
        # From another thread than the event loop's it has to wait for its turn.
        if gevent.get_hub().loop is self._events:
            self.end(viewer, why)
        else:
            self._events.run_callback_threadsafe(self.end, viewer, why)

    def _begin(self, viewer: Viewer, reader: Reader) -> None:
        lag = self._lag(viewer, reader.epoch, reader.position, memoryview(b""))
        for end in reader.ended.values():
            viewer.group.note_end(end, reader.position)
        ready = reader.take_ready()
        if ready is not None:
            self._fill(viewer, lag, ready)
        self._give_turn(viewer)

    def deliver(self, entries: Sequence[Entry]) -> None:
        """Send the log's newest entries to all that are caught up."""
        batches: dict[ViewerGroup, list[Entry]] = {}
        for entry in entries:
            for group in self._listening.get(entry.channel, ()):
                batches.setdefault(group, []).append(entry)
        events = 0
        for group, some in batches.items():
            events += len(some) * len(group.caught_up)
            group.events += len(some)
            self._send(group, group.batch(some))
            group.note_ends(some)
            if group.finished_by(self._recent.end):
                for viewer in list(group.caught_up.values()):
                    self.end(viewer, group.why_finished)
        self._counts.add("events", events)
        if self._counts.channels:
            self._count_by_channel(entries)

    def _count_by_channel(self, entries: Sequence[Entry]) -> None:
        for channel in self._counts.channels & {entry.channel for entry in entries}:
            viewers = sum(len(group.caught_up) for group in self._listening.get(channel, ()))
            count = sum(entry.channel == channel for entry in entries)
            self._counts.in_channel("events", channel, viewers * count)

    def _send(self, group: ViewerGroup, batch: Batch) -> None:
        if not batch.data:
            return
        others = write_to_each(group.descriptors(), batch.data)
        group.bytes += batch.size
        self._counts.add("bytes", batch.size * len(group.caught_up))
        group.wrote_at = time.monotonic()
        for descriptor, taken in others.items():
            viewer = group.caught_up[descriptor]
            if taken == GONE:
                self.end(viewer, host.DISCONNECTED)
            else:
                rest, position = batch.rest(taken, self._recent.end)
                epoch = self._recent.epoch_at(position)
                self._watch(viewer, self._lag(viewer, epoch, position, rest))

    def _send_heartbeat(self, group: ViewerGroup) -> None:
        self._send(group, Batch(group.framed(HEARTBEAT), len(HEARTBEAT), []))

    def _lag(self, viewer: Viewer, epoch: int, position: int, rest: memoryview) -> Lag:
        """Make the viewer one that lags at a position and has yet to be sent ``rest``."""
        self._draining.discard(viewer)
        if viewer.group.discard(viewer):
            with Tcp(viewer.descriptor) as tcp:
                tcp.wait_for_answers(0)
        viewer.lag = lag = Lag(epoch, position, rest)
        if viewer not in self._lagging:
            self._lagging.add(viewer)
            self._counts.add("lagging")
        return lag

    def _give_turn(self, viewer: Viewer) -> None:
        """Have a lagging viewer served soon."""
        lag = viewer.lag
        if lag is None or lag.due:
            return
        lag.due = True
        if lag.watcher is not None:
            lag.watcher.stop()
        self._due.append(viewer)
        if not self._serving:
            self._serving = True
            self._events.run_callback(self._serve_some)

    def _serve_some(self) -> None:
        """Serve lagging viewers for a slice of time, so that others have their turns between."""
        until = time.monotonic() + SLICE
        while self._due:
            viewer = self._due.popleft()
            if viewer.lag is not None:
                viewer.lag.due = False
                self._try_to_serve(viewer, viewer.lag)
            if time.monotonic() >= until:
                break
        self._serving = bool(self._due)
        if self._serving:
            self._events.run_callback(self._serve_some)

    def _try_to_serve(self, viewer: Viewer, lag: Lag) -> None:
        try:
            self._serve(viewer, lag)
        except Exception:
            log.exception("a delivery failed; its client comes back and resumes")
            self.end(viewer, FAILED)

    def _serve(self, viewer: Viewer, lag: Lag) -> None:
        """Send a lagging viewer what its socket takes, one piece at most."""
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
        if lag.rest:
            self._watch(viewer, lag)
        elif self._refill(viewer, lag):
            self._give_turn(viewer)

    def _watch(self, viewer: Viewer, lag: Lag) -> None:
        """Serve the viewer once its socket can take more."""
        if lag.watcher is None:
            lag.watcher = self._events.io(viewer.descriptor, 2)
        lag.watcher.start(self._give_turn, viewer)

    def _refill(self, viewer: Viewer, lag: Lag) -> bool:
        """Read the next piece; false if there is none for now, or the viewer lags no more."""
        recent, group = self._recent, viewer.group
        while not group.finished_by(lag.position):
            if not recent.holds(lag.epoch, lag.position):
                self._want_older(viewer, lag)
                return False
            if lag.position == recent.end:
                self._catch_up(viewer)
                return False
            if self._fill(viewer, lag, recent.piece(group.view, lag.position)):
                return True
        self.end(viewer, group.why_finished)
        return False

    def _fill(self, viewer: Viewer, lag: Lag, piece: Piece) -> bool:
        """Have the viewer sent a piece; false if there is nothing in it for it."""
        lag.epoch, lag.position = piece.epoch, piece.position
        if piece.entries and is_end(piece.entries[-1]):
            viewer.group.note_end(piece.entries[-1], piece.position)
        viewer.events += len(piece.entries)
        viewer.bytes += len(piece.block)
        self._counts.delivered(len(piece.entries), len(piece.block))
        lag.rest = memoryview(piece.framed(viewer.group.kind.chunked))
        return bool(lag.rest)

    def _catch_up(self, viewer: Viewer) -> None:
        """The viewer is at the end of the log, and goes on with its group."""
        self._stop_lagging(viewer)
        viewer.group.add(viewer)
        # Not until its host has taken everything: one that reads slowly is not one that is gone.
        self._draining.add(viewer)

    def _stop_lagging(self, viewer: Viewer) -> None:
        if viewer.lag is not None:
            if viewer.lag.watcher is not None:
                viewer.lag.watcher.stop()
                viewer.lag.watcher.close()
            viewer.lag = None
            self._lagging.discard(viewer)
            self._counts.add("lagging", -1)

    def _want_older(self, viewer: Viewer, lag: Lag) -> None:
        """Have a piece read from the broker, once for all viewers that need it."""
        if lag.watcher is not None:
            lag.watcher.stop()
        wanted = (viewer.group.view, lag.epoch, lag.position)
        if wanted not in self._wanted:
            self._wanted[wanted] = []
            self._unread.append(wanted)
            if self._reading < AT_ONCE:
                self._reading += 1
                gevent.spawn(self._read_older)
        self._wanted[wanted].append(viewer)

    def _read_older(self) -> None:
        try:
            while self._unread:
                wanted = self._unread.popleft()
                try:
                    piece = self._follower.older.piece(*wanted)
                except (BrokerUnavailable, HubClosed):
                    self._unread.append(wanted)
                    gevent.sleep(jittered(RETRY, 0.5, 1.0))
                except Exception as error:
                    self._end_waiting(wanted, error)
                else:
                    self._give_older(wanted, piece)
                    gevent.sleep(0)
        finally:
            self._reading -= 1

    def _give_older(self, wanted: Position, piece: Piece | None) -> None:
        for viewer in self._wanted.pop(wanted):
            lag = viewer.lag
            if lag is None:
                continue  # It has left meanwhile.
            if piece is not None:
                self._fill(viewer, lag, piece)
                self._give_turn(viewer)
            elif self._follower.recent.is_ahead(lag.epoch, lag.position):
                gevent.spawn_later(0.05, self._give_turn, viewer)  # The follower is about to come.
            else:
                self.end(viewer, SLOW)

    def _end_waiting(self, wanted: Position, error: Exception) -> None:
        """End the streams that cannot go on; their clients come back, and are told what is lost."""
        if not isinstance(error, HistoryLost):
            log.warning("older events could not be read: %r", error)
        for viewer in self._wanted.pop(wanted):
            if viewer.lag is not None:
                self.end(viewer, SLOW)

    def end(self, viewer: Viewer, why: str) -> None:
        """Close a viewer's connection, with its closing retry where that can still be said."""
        if viewer.descriptor < 0:
            return  # It has ended meanwhile, and its descriptor may be another's by now.
        group = viewer.group
        between_events = viewer.lag is None or not viewer.lag.rest
        group.discard(viewer)
        self._draining.discard(viewer)
        self._stop_lagging(viewer)
        self._loop.disconnects.forget(viewer.descriptor)
        if between_events and why not in (host.DISCONNECTED, FAILED):
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
            self._owner = None

    def restart(self, epoch: int, position: int) -> None:
        """The recent entries begin anew: those caught up read on from where they are."""
        for group in list(self._groups.values()):
            for viewer in list(group.caught_up.values()):
                self._lag(viewer, epoch, position, memoryview(b""))
                self._give_turn(viewer)

    def end_all(self) -> None:
        """End every stream; called when the process or the hub ends."""
        for group in list(self._groups.values()):
            for viewer in list(group.caught_up.values()):
                self.end(viewer, host.ENDING)
        for viewer in list(self._lagging):
            self.end(viewer, host.ENDING)

    def tick(self, now: float) -> None:
        """See now and then whether the hosts of viewers that are slow still answer.

        The kernel sees that for the others, once they have taken everything.
        """
        if now - self._checked_at < SILENCE_CHECKED:
            return
        self._checked_at = now
        for viewer in [*self._lagging, *islice(self._draining, CHECKED_AT_ONCE)]:
            wait = patience(viewer.group.heartbeat)
            with Tcp(viewer.descriptor) as tcp:
                taken, silent_for = tcp.has_sent_all(), tcp.silent_for()
                if taken and viewer in self._draining:
                    self._draining.discard(viewer)
                    tcp.wait_for_answers(wait)
            if silent_for > wait:
                self.end(viewer, host.DISCONNECTED)
