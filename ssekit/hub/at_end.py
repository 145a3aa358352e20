"""Blocks that do something once their stream is over, however it is served.

A stream is over when its blocks are closed, or, where something else has taken its client over,
when its admission ends.  `AtEnd` stands for both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ssekit import host
from ssekit.stream.blocks import Blocks
from ssekit.stream.open import OpenStream


class Stoppable(Protocol):
    """Blocks that can be ended from outside."""

    def next_block(self, client: host.Client) -> tuple[int, bytes]: ...
    def take_over(self, stream: OpenStream) -> bool: ...
    def close(self, client: host.Client) -> None: ...
    def stopper(self) -> Callable[[str], None]: ...


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
        before = admission.at_end
        admission.at_end = (self._at_end, *before)
        if self._blocks.take_over(stream):
            return True
        admission.at_end = before
        return False

    def stopper(self) -> Callable[[str], None]:
        """Return what ends the stream as it is served now."""
        return self._blocks.stopper()

    def close(self, client: host.Client) -> None:
        self._at_end()
        self._blocks.close(client)
