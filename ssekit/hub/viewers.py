"""Clients that the fan-out serves: one by one where they lag, and together where they do not.

Values and counts; nothing here writes to a socket or knows the event loop.
"""

from __future__ import annotations

import struct
import time
from array import array
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, NamedTuple, Protocol

from ssekit import host
from ssekit.brokers import Entry, parse_id
from ssekit.host.chunks import chunk
from ssekit.hub.entries import framing, is_broken_off, is_end
from ssekit.hub.pieces import View, finished_why
from ssekit.stream.kept import kept_path
from ssekit.stream.open import OpenStream

PART = 4 * 1024
"""Bytes in one chunk of a batch: a client that has not taken all is sent the rest of one chunk."""


class Kind(NamedTuple):
    """What the clients of a group have in common."""

    view: View
    chunked: bool
    heartbeat: float


class Server(Protocol):
    """What serves the viewers of a group."""

    def send_heartbeat(self, group: ViewerGroup) -> None:
        """Send a heartbeat to those that are caught up."""

    def end(self, viewer: Viewer, why: str) -> None:
        """End a viewer's stream, in the event loop."""

    def end_from_any_thread(self, viewer: Viewer, why: str) -> None:
        """End a viewer's stream."""


class ViewerGroup:
    """Clients with the same channels, framing and heartbeat.

    Those of them that are caught up are served together: position belongs to the group.
    """

    __slots__ = (
        "_broken_off",
        "_counted",
        "_descriptors",
        "_ended",
        "_frame",
        "bytes",
        "caught_up",
        "events",
        "heartbeat",
        "kind",
        "lacking",
        "members",
        "server",
        "view",
        "wrote_at",
    )

    def __init__(self, kind: Kind, server: Server) -> None:
        self.kind = kind
        self.server = server
        self.view = kind.view
        self.heartbeat = kind.heartbeat
        self.caught_up: dict[int, Viewer] = {}  # by descriptor
        self.members = 0  # those that lag included
        self.wrote_at = time.monotonic()
        self.events = 0
        self.bytes = 0
        self.lacking: set[int] | None = None
        """While a delivery takes several turns: the descriptors of those who do not have it yet."""
        self._counted = (0, 0)  # of that delivery
        self._descriptors: array[int] | None = None  # of those caught up, until one comes or goes
        self._frame: Callable[[Entry], bytes] = framing(kind.view.hub_events, kind.view.own_ids)
        self._ended: dict[str, int] = {}  # by finished channel, the position of its end
        self._broken_off: set[str] = set()  # those whose producer has not sent everything

    def add(self, viewer: Viewer) -> None:
        """Count the viewer among those that are caught up."""
        self.caught_up[viewer.descriptor] = viewer
        self._descriptors = None
        viewer.events -= self.events
        viewer.bytes -= self.bytes

    def discard(self, viewer: Viewer) -> bool:
        """Take the viewer from those that are caught up; false if it is not one of them."""
        if self.caught_up.pop(viewer.descriptor, None) is None:
            return False
        self._descriptors = None
        viewer.events += self.events
        viewer.bytes += self.bytes
        if self.lacking is not None and viewer.descriptor in self.lacking:
            self.lacking.discard(viewer.descriptor)  # It may soon be another client's.
            viewer.events -= self._counted[0]
            viewer.bytes -= self._counted[1]
        return True

    def expect(self) -> None:
        """A delivery begins that takes several turns: all who are caught up now are to get it.

        Those who come meanwhile have it already.  The owner sets ``lacking`` to None at its end.
        """
        self.lacking = set(self.caught_up)
        self._counted = (0, 0)

    def count(self, events: int, size: int) -> None:
        """Count what all who are caught up are sent."""
        self.events += events
        self.bytes += size
        if self.lacking is not None:
            self._counted = (events, size)
            for descriptor in self.caught_up.keys() - self.lacking:
                self.caught_up[descriptor].events -= events
                self.caught_up[descriptor].bytes -= size

    def take_lacking(self, most: int) -> array[int]:
        """Return some of those who lack the delivery, which are to get it now; none at the end."""
        lacking = self.lacking or set()
        some = array("i", islice(lacking, most))
        lacking.difference_update(some)
        return some

    def descriptors(self) -> array[int]:
        """Return those of the viewers that are caught up."""
        if self._descriptors is None:
            self._descriptors = array("i", struct.pack(f"{len(self.caught_up)}i", *self.caught_up))
        return self._descriptors

    def beat(self) -> None:
        """Send a heartbeat to those that are caught up: they had the last event together."""
        if self.caught_up and self.lacking is None:
            self.server.send_heartbeat(self)

    def framed(self, block: bytes) -> bytes:
        """Return a block as it is sent."""
        return chunk(block, self.kind.chunked) if block else b""

    def batch(self, entries: Sequence[Entry]) -> Batch:
        """Return entries as they are sent to those that are caught up."""
        if len(entries) == 1:
            block = self._frame(entries[0])
            return Batch(self.framed(block), len(block), [])
        parts: list[bytes] = []
        ends: list[tuple[int, int]] = []
        frames: list[bytes] = []
        size = length = total = 0
        for entry in entries:
            frames.append(self._frame(entry))
            size += len(frames[-1])
            if size >= PART or entry is entries[-1]:
                parts.append(self.framed(b"".join(frames)))
                length += len(parts[-1])
                ends.append((length, parse_id(entry.id)[1]))
                total += size
                size, frames = 0, []
        return Batch(b"".join(parts), total, ends)

    def note_ends(self, entries: Sequence[Entry]) -> None:
        """Note which channels were finished, or reopened, by entries that all of it has now."""
        for entry in entries:
            if is_end(entry):
                self._ended[entry.channel] = parse_id(entry.id)[1]
                self._note_reason(entry)
            elif self._ended:
                self._ended.pop(entry.channel, None)

    def note_end(self, end: Entry, position: int) -> None:
        """Note that a channel was finished at a position, if nothing newer is known."""
        if end.channel not in self._ended:
            self._ended[end.channel] = position
            self._note_reason(end)

    def _note_reason(self, end: Entry) -> None:
        (self._broken_off.add if is_broken_off(end) else self._broken_off.discard)(end.channel)

    @property
    def why_finished(self) -> str:
        """Why its streams end, once all of its channels are finished."""
        return finished_why(self.view, self._broken_off & self._ended.keys())

    def finished_by(self, position: int) -> bool:
        """Return whether all channels were finished at a position."""
        ended = self._ended
        if not ended or not self.view.is_finished(ended):
            return False
        return self.view.is_finished([channel for channel, end in ended.items() if end <= position])


class Batch(NamedTuple):
    """Entries as they are sent to a group: with the end and the position of each part."""

    data: bytes
    size: int
    """Bytes without the chunks' framing."""
    parts: list[tuple[int, int]]

    def rest(self, taken: int, position: int) -> tuple[memoryview, int]:
        """Return what is left of the part that a client has begun with, and the position after it.

        ``position`` is the one after the whole batch.
        """
        for end, after in self.parts:
            if taken < end:
                return memoryview(self.data)[taken:end], after
        return memoryview(self.data)[taken:], position


class Lag:
    """What a viewer has while it is not caught up: its position, and what it is being sent."""

    __slots__ = ("due", "epoch", "position", "rest", "watcher")

    def __init__(self, epoch: int, position: int, rest: memoryview) -> None:
        self.epoch = epoch
        self.position = position
        self.rest = rest
        self.due = False  # whether it has a turn to come
        self.watcher: Any = None  # made once the socket has not taken all


class Viewer:
    """One client whose connection was taken over.

    ``events`` and ``bytes`` are kept as differences from the group's while it is caught up, so that
    a delivery has nothing to count.
    """

    __slots__ = (
        "about",
        "admission",
        "began",
        "bytes",
        "cuts",
        "descriptor",
        "events",
        "group",
        "lag",
        "path",
        "retry",
    )

    def __init__(self, group: ViewerGroup, descriptor: int, stream: OpenStream) -> None:
        self.group = group
        self.descriptor = descriptor
        self.lag: Lag | None = None
        self.admission = stream.admission
        self.path = kept_path(stream.path)
        self.about = stream.about
        self.retry = stream.retry
        self.cuts = stream.cuts
        self.began = stream.began
        self.events = stream.events
        self.bytes = stream.given + len(stream.opening)

    def disconnected(self) -> None:
        """The client has disconnected."""
        self.group.server.end(self, host.DISCONNECTED)

    def stop(self, why: str) -> None:
        """End the stream; from any thread."""
        self.group.server.end_from_any_thread(self, why)
