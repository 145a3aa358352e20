"""The parts that a stream is built from: what opens it for a client, and what gives its blocks.

A `ssekit.stream.stream.Stream` answers requests.  Everything that is special about its events is in
two objects that it is given:

* An `Opener` belongs to the stream.  For each client that is admitted, ``opener.open(environ)`` is
  called before the headers leave, and returns
* `Blocks`, which belong to that one client.  Once the headers and the opening have left, the stream
  asks them again and again, until it ends::

      blocks.take_over(stream)     may the client be served without the server from here on?
      blocks.next_block(client)    what is to be sent next?
      blocks.close(client)         the stream is over

The stream itself does what is alike for all: who is admitted, the headers, the opening, heartbeats,
errors, the closing ``retry:``, and the log line at the end.  A list or callable is opened by
`ssekit.stream.source.SourceOpener`; the hub and ticking functions bring openers of their own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from ssekit import host
from ssekit.stream.admission import Limit
from ssekit.stream.open import OpenStream


class Blocks(ABC):
    """The events of one client, as blocks of bytes."""

    subject: str | None = None
    """Who the client is, for the log line of its stream, if that is known."""
    waits = False
    """Whether there may be waits between the events, so that a greenlet of its own is worth it.

    The stream then leaves the server's greenlet where it can (`host.Client.continue_alone`).
    """

    @abstractmethod
    def next_block(self, client: host.Client) -> tuple[int, bytes]:
        """Wait for the next events; return how many they are, and their bytes as one block.

        Returns ``(0, b"")`` where there is nothing after a wait, so that the stream can send a
        heartbeat if one is due (``client.idle`` waits no longer than that).  Raises StopIteration
        when the source has ended, `host.Ended` when it was ended, and anything else when it failed.
        """

    def take_over(self, stream: OpenStream) -> bool:
        """Serve the client without the server's thread or greenlet from here on, if possible.

        Called between two blocks, first after the opening has left, and only where the server is
        known (``stream.connection``).  It is all or nothing: on False nothing has changed, and
        `next_block` follows.  On True everything belongs to the one that took over: the connection
        was abandoned, these blocks were closed or are kept, and ``stream.end`` (or what it does) is
        to be called by it.
        """
        return False

    @abstractmethod
    def close(self, client: host.Client) -> None:
        """Release what the client held; not called after `take_over`."""


class Opener(ABC):
    """Opens a stream for each of its clients."""

    limit: Limit
    """How many may be open at once."""
    cuts = False
    """Whether a stream that the server has to end is cut, without its last chunk.

    For clients that take an orderly end for the end of all events.  A source that ends by itself
    ends orderly.
    """

    @abstractmethod
    def open(self, environ: dict[str, Any]) -> Blocks:
        """Return the blocks of one client.

        It runs before the headers leave: `Stop` is answered 204, `Overloaded` as too many
        streams are, a werkzeug ``HTTPException`` is its own answer, anything else a 500.
        """
