"""Sees which clients have disconnected, without reading: one edge-triggered epoll set for all.

``EPOLLRDHUP`` shows it within milliseconds even while the stream is idle, and, unlike a peek
at the next byte, also after bytes that a client has pipelined.  Where there is no epoll (it is
Linux's) a client that disconnected is noticed at the next write.

A client that only shuts down its sending side counts as disconnected too, as in nginx and in Go's
net/http: nothing but a failed write could tell it from one that has gone, and browsers, proxies and
curl never do it.
"""

from __future__ import annotations

import contextlib
import select
import sys
from typing import Protocol


def _epoll() -> select.epoll | None:
    # gevent removes epoll from the patched module, as it would block the loop; ours never waits
    # in it under gevent.
    monkey = sys.modules.get("gevent.monkey")
    try:
        kind = monkey.get_original("select", "epoll") if monkey else select.epoll
    except AttributeError:
        return None
    return kind()


class Peer(Protocol):
    """The other end of a connection."""

    def disconnected(self) -> None:
        """Called when it has disconnected; perhaps more than once."""


class Disconnects:
    """The descriptors that are watched, each with its peer."""

    def __init__(self) -> None:
        self._epoll = _epoll()
        self._peers: dict[int, Peer] = {}

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when a peer disconnects; -1 for none."""
        return -1 if self._epoll is None else self._epoll.fileno()

    def watch(self, descriptor: int, peer: Peer) -> None:
        """Call ``peer.disconnected()`` when the other end of ``descriptor`` disconnects."""
        if self._epoll is None or descriptor < 0:
            return
        self._peers[descriptor] = peer
        self._epoll.register(descriptor, select.EPOLLRDHUP | select.EPOLLET)

    def forget(self, descriptor: int) -> None:
        """Stop watching; to be called before the descriptor is closed."""
        if self._peers.pop(descriptor, None) is not None and self._epoll is not None:
            # The server may have closed it already; the kernel then forgot it with the close.
            with contextlib.suppress(OSError):
                self._epoll.unregister(descriptor)

    def collect(self) -> None:
        """Call the peers that have disconnected since the last time.  Never blocks."""
        if self._epoll is None:
            return
        for descriptor, _ in self._epoll.poll(0, max(len(self._peers), 1)):
            peer = self._peers.get(descriptor)
            if peer is not None:
                peer.disconnected()
