"""Channels of a hub as a stream: what each client is sent, and by what.

The stream's parts do the rest (`ssekit.stream.blocks`).  Where the server lets it, the fan-out
takes a client over once its opening has left; otherwise it is served here, block by block.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from ssekit import host
from ssekit.hub.at_end import AtEnd
from ssekit.hub.follower import Follower
from ssekit.hub.grant import Member
from ssekit.hub.pieces import FINISHED, View
from ssekit.hub.presence import Presence, members_channel
from ssekit.hub.reader import Reader
from ssekit.stream.admission import Limit
from ssekit.stream.blocks import Blocks, Opener
from ssekit.stream.open import OpenStream
from ssekit.stream.response import last_event_id, plain_answer
from ssekit.stream.source import Stop

if TYPE_CHECKING:
    from ssekit.hub.fanout import Fanout

log = logging.getLogger("ssekit.hub")

LOST = "history lost"
"""Why a stream of a client that knows no hub events has ended."""


class Gone(Exception):
    """Raised where a client that knows no hub events has lost history: it is answered 410.

    It is its own WSGI application, as a werkzeug ``HTTPException`` is.
    """

    def get_response(self) -> None:
        """Marks it as an answer."""

    def __call__(self, environ: Mapping[str, Any], start_response: Callable[..., Any]) -> Any:
        answer = plain_answer("410 Gone", "What came after this id is no longer there.", [])
        return answer.give(environ, start_response)


class Channels(Opener):
    """Opens a stream of some channels for each client.

    ``follow`` returns the follower of this process.  ``replay`` is how many of the last events the
    opening has, None for all.  Without ``hub_events`` a client is cut off where the server ends the
    stream, as it would take an orderly end for the end of all events.  It gets the ids of those
    events, unless it has all events replayed: it then needs no id to miss nothing.
    With ``presence`` it gets the joins and leaves of their members; ``member`` is the client's own,
    and ``present`` returns what counts it.
    """

    def __init__(
        self,
        follow: Callable[[], Follower],
        limit: Limit,
        channels: frozenset[str],
        *,
        replay: int | None,
        hub_events: bool,
        presence: bool,
        present: Callable[[], Presence],
        check: Callable[[Mapping[str, Any]], None],
        member: Member | None = None,
    ) -> None:
        self.limit = limit
        self.cuts = not hub_events
        self._follow = follow
        self.channels = channels
        own_ids = replay is not None
        self._view = View(channels, hub_events, own_ids=own_ids)
        if presence:
            members = {members_channel(channel) for channel in channels}
            self._view = View(channels | members, hub_events, len(members), own_ids)
        self._present = present
        self._member = member
        self._replay = replay
        self._check = check
        if host.under_gevent():  # Now, and not when a thousand clients come at once.
            import ssekit.hub.fanout  # noqa: F401

    def open(self, environ: dict[str, Any]) -> ChannelBlocks | AtEnd:
        return self.open_for(environ, self._member)

    def open_for(self, environ: dict[str, Any], member: Member | None) -> ChannelBlocks | AtEnd:
        """Open the stream of a client that is this member while it is open."""
        self._check(environ)
        last = last_event_id(environ)
        reader = Reader(self._follow(), self._view, last, self._replay)
        if last and not self._view.hub_events:
            reader.skip_own()
        if reader.missed_nothing:
            reader.close()
            raise Stop
        if reader.lost and not self._view.hub_events:
            reader.close()
            raise Gone
        blocks = ChannelBlocks(reader, self._follow)
        if member is None:
            return blocks
        return AtEnd(blocks, self._present().enter(self.channels, member).end)


class ChannelBlocks(Blocks):
    """What one client is sent of its channels, until the fan-out serves it."""

    def __init__(self, reader: Reader, follow: Callable[[], Follower]) -> None:
        self._reader = reader
        self._follow = follow
        self._may_leave = True  # until it is seen that the server cannot hand the client over
        self._end: Callable[[str], None] | None = None  # what ends it, once it is served elsewhere
        self._unsettled = False  # whether that was too early

    def next_block(self, client: host.Client) -> tuple[int, bytes]:
        reader = self._reader
        reader.client = client
        piece = None
        if not reader.at_end():
            client.enter()  # Others may want to run first.
            client.leave()
            piece = reader.next_piece()
        if piece is None and self._unsettled and reader.settled:
            self._unsettled = False
            return 0, b""  # It may be taken over now.
        if piece is None:
            if not reader.over:
                reader.wait(client.idle)
                client.check()
                piece = reader.next_piece()
            if piece is None and reader.finished:
                if reader.why_finished == FINISHED:
                    raise StopIteration
                raise host.Ended(reader.why_finished)
            if piece is None and reader.closed:
                raise host.Ended(host.ENDING)
        if reader.lost and not reader.view.hub_events:
            raise host.Ended(LOST)  # It is cut off, and answered 410 when it comes back.
        return (0, b"") if piece is None else (len(piece.entries), piece.block)

    def take_over(self, stream: OpenStream) -> bool:
        reader, connection = self._reader, stream.connection
        if not self._may_leave or connection is None or reader.finished or reader.closed:
            return False
        fanout = fanout_of(reader.follower)
        if fanout is None or not fanout.can_take(connection, stream.given):
            self._may_leave = False
            return False
        if not reader.settled:
            self._unsettled = True
            return False
        try:
            self._end = fanout.take(connection, stream, reader, self._follow)
        except Exception as error:
            log.warning("a stream could not be taken over, and keeps its greenlet: %s", error)
            self._may_leave = False
            return False
        reader.close()
        return True

    def stopper(self) -> Callable[[str], None]:
        """Return what ends the stream as it is served now.

        Where the fan-out serves it that is at once; else it is woken, to look why it has to end.
        """
        return self._end or self._wake

    def _wake(self, why: str) -> None:
        self._reader.wake()

    def close(self, client: host.Client) -> None:
        self._reader.close()


def fanout_of(follower: Follower) -> Fanout | None:
    """Return what serves clients without the server, where the server lets it."""
    if (
        follower.distributor is None
        and os.environ.get("SSEKIT_FANOUT") != "off"
        and host.under_gevent()
    ):
        from ssekit.hub.fanout import Fanout

        follower.distributor = Fanout(follower)
    return cast("Fanout | None", follower.distributor)
