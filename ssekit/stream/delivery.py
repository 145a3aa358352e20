"""From what the `Blocks` of a stream give, or raise, to what its client is sent.

That is events, heartbeats, and the closing ``retry:``.  `ssekit.stream.body.Body` hands the blocks
to the server.
"""

from __future__ import annotations

from collections.abc import Callable

from ssekit import host
from ssekit.host.connection import Connection
from ssekit.host.logs import Logger
from ssekit.stream.blocks import Blocks
from ssekit.stream.open import OpenStream
from ssekit.stream.response import closing_retry
from ssekit.stream.source import Stop, is_http_exception
from ssekit.wire import HEARTBEAT

log = Logger("ssekit.stream")


class Delivery:
    """The blocks of an open stream, one after the other, and its end."""

    def __init__(self, stream: OpenStream, blocks: Blocks) -> None:
        self.stream = stream
        self._blocks = blocks
        self._next: Callable[[], bytes] = self._pull
        self._why = host.DISCONNECTED
        self._moves = type(blocks).take_over is not Blocks.take_over
        self.leaves = self._moves or blocks.waits
        """Whether it may leave the server before its end."""
        self._events = 0  # of the block that comes next

    def leave_at_once(self, connection: Connection | None, opening: bytes) -> bool:
        """Leave the server before it has sent anything: the opening goes out with what follows.

        On False nothing has changed.
        """
        if connection is None or not connection.transparent:
            return False  # A framework may ask for the first block before it answers.
        self.stream.opening = opening
        self._next = self._open
        if self._leave(connection):
            return True
        self.stream.opening = b""
        self._next = self._pull
        return False

    def _open(self) -> bytes:
        self._next = self._pull
        opening, self.stream.opening = self.stream.opening, b""
        return opening

    def attach(self, connection: Connection | None) -> bool:
        """Go on with a connection, now that the opening has left; None if the server is unknown.

        Returns true if the server is done with its answer: the stream goes on beside it, or has
        been taken over.
        """
        if self._leave(connection):
            return True
        self.stream.client.attach(connection)
        return False

    def _leave(self, connection: Connection | None) -> bool:
        self.stream.connection = connection
        if self._taken_over():
            return True
        if (
            connection is not None
            and self._blocks.waits
            and self.stream.client.continue_alone(connection, self.next_block, self.close)
        ):
            self.stream.connection = self.stream.client.connection
            self.stream.admission.release()
            self._moves = False
            return True
        return False

    def next_block(self) -> bytes:
        """Return what to send next.  Raises StopIteration at the end."""
        block = self._next()
        self.stream.client.wrote(block)
        self.stream.counts.delivered(self._events, len(block))
        self._events = 0
        return block

    def _taken_over(self) -> bool:
        """Tell whether the client is served elsewhere from here on."""
        if self.stream.connection is None or not self._blocks.take_over(self.stream):
            return False
        self._next = _over
        self.stream.detach()
        return True

    def _pull(self) -> bytes:
        block = b""
        while not block:
            if self._moves and self._taken_over():
                return _over()
            try:
                events, block = self._blocks.next_block(self.stream.client)
                self.stream.client.events += events
                self._events = events
            except StopIteration:
                return self._finish("source ended")
            except host.Ended as ended:
                return self._say_closing_retry(ended.reason)
            except SystemExit:
                return self._finish("source ended")  # Its own exit must not be the server's.
            except BaseException as error:
                if not host.failed(error):
                    raise
                late = _TOO_LATE if isinstance(error, Stop) or is_http_exception(error) else ""
                log.exception("the source of %s failed; its stream ends%s", self.stream.path, late)
                return self._say_closing_retry("source failed")
            if not block and self.stream.client.beat_due() <= 0:
                block = HEARTBEAT
        return block

    def _say_closing_retry(self, why: str) -> bytes:
        if why == host.DISCONNECTED:
            return self._finish(why)
        self._why = why
        self._next = self._finish_unasked
        return closing_retry(self.stream.retry)

    def _finish_unasked(self) -> bytes:
        """Finish a stream whose source had more to send, or may have."""
        if self.stream.cuts and self.stream.connection is not None:
            self.stream.connection.cut()  # Not before: the closing retry still had to be framed.
        return self._finish()

    def _finish(self, why: str | None = None) -> bytes:
        self._why = why or self._why
        self.close()
        return _over()

    def close(self) -> None:
        """End the stream, also when the client has left.  May be called again."""
        if self._next is _over:
            return
        self._next = _over  # Nothing of ours refers to itself any more, so it is freed at once.
        try:
            self._blocks.close(self.stream.client)
        except Exception:
            log.exception("the source of %s failed when it was closed", self.stream.path)
        finally:
            self.stream.detach()
            self.stream.end(self._why)


def _over() -> bytes:
    raise StopIteration


_TOO_LATE = (
    " (too late for an answer of its own: raise it in a function that returns the events, which is"
    " called before the headers leave)"
)
