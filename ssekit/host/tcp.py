"""What we tell the kernel about a client's connection, and ask it; for others than TCP, nothing.

A host that vanished without a word never acknowledges what it is sent, a heartbeat at the latest.
TCP_USER_TIMEOUT drops such a connection, but also one whose client has only stopped reading for as
long.  Where that must live on, `Tcp.silent_for` tells the two apart: a host that is there
acknowledges what it is sent, and the kernel's probes of its closed window.
"""

from __future__ import annotations

import _socket
import contextlib
import socket
import struct
import sys
from fcntl import ioctl
from termios import TIOCOUTQ
from typing import Any

STALL = 10.0
"""Seconds for which a connection may stall, however short its heartbeat is.

Packets that were lost are sent again after a second or more, and a change from one wireless network
to another takes several.
"""


def patience(heartbeat: float) -> float:
    """Return the seconds without an acknowledgement after which a host counts as vanished."""
    return max(heartbeat, STALL)


def bound_unsent(connected: Any, size: int) -> None:
    """Let the kernel take no more than ``size`` bytes beyond what is on a socket's way."""
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        with contextlib.suppress(OSError):  # Not TCP.
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, size)


class Tcp:
    """The connection under a descriptor, for as long as the block lasts."""

    def __init__(self, descriptor: int) -> None:
        # A view of the descriptor; it is detached again before anybody could close it.
        self._socket = _socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, descriptor)

    def __enter__(self) -> Tcp:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.detach()

    def wait_for_answers(self, seconds: float) -> None:
        """Drop the connection once bytes are unacknowledged for that long; 0 for the default."""
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            self._set(socket.TCP_USER_TIMEOUT, min(round(seconds * 1000), 2**31 - 1))

    def has_sent_all(self) -> bool:
        """Whether the other host has taken all that was written; true where that is not known."""
        if sys.platform != "linux":
            return True
        try:
            # SIOCOUTQ of linux/sockios.h, by its other name: bytes that are not acknowledged.
            queued = ioctl(self._socket.fileno(), TIOCOUTQ, bytes(4))
        except OSError:
            return True
        return not any(queued)

    def silent_for(self) -> float:
        """Seconds since the last acknowledgement, or 0 if none is due."""
        if sys.platform != "linux":  # Elsewhere there is no TCP_INFO, or it has other fields.
            return 0.0
        try:
            info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 60)
        except OSError:
            return 0.0
        # struct tcp_info of linux/tcp.h: tcpi_unacked and tcpi_last_ack_recv, in milliseconds.
        unacknowledged, last = struct.unpack_from("=I28xI", info, 24)
        return last / 1000 if unacknowledged else 0.0

    def _set(self, option: int, value: int) -> None:
        with contextlib.suppress(OSError):  # Not TCP.
            self._socket.setsockopt(socket.IPPROTO_TCP, option, value)
