"""Blocks that do something once their stream is over, however it is served.

A stream is over when its blocks are closed, or, where something else has taken its client over,
when its admission ends.  `AtEnd` stands for both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ssekit import host
from ssekit.stream.admission import Admission
from ssekit.stream.blocks import Blocks
from ssekit.stream.open import OpenStream


class Stoppable(Protocol):
    """Blocks that can be told to end."""

    def next_block(self, client: host.Client) -> tuple[int, bytes]: ...
    def take_over(self, stream: OpenStream) -> bool: ...
    def close(self, client: host.Client) -> None: ...
    def stop(self, why: str) -> None: ...


class AtEnd(Blocks):
    """Other blocks, and a function that is called when they are over.

    It may be called in the event loop, and so must not wait.
    """

    def __init__(self, blocks: Stoppable, at_end: Callable[[], None]) -> None:
        self._blocks = blocks
        self._at_end = at_end

    def next_block(self, client: host.Client) -> tuple[int, bytes]:
        return self._blocks.next_block(client)

    def take_over(self, stream: OpenStream) -> bool:
        admission = stream.admission
        stream.admission = _Ending(admission, self._at_end)
        if self._blocks.take_over(stream):
            return True
        stream.admission = admission
        return False

    def stop(self, why: str) -> None:
        """End the stream, wherever it is served."""
        self._blocks.stop(why)

    def close(self, client: host.Client) -> None:
        self._at_end()
        self._blocks.close(client)


class _Ending(Admission):
    """The admission of a stream that is served elsewhere, which also says that it is over."""

    __slots__ = ("_at_end", "_inner")

    def __init__(self, inner: Admission, at_end: Callable[[], None]) -> None:
        self._inner = inner
        self._at_end = at_end

    def release(self) -> None:
        self._inner.release()

    def end(self) -> None:
        self._at_end()
        self._inner.end()
