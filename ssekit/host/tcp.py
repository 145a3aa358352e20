"""What we tell the kernel about a client's connection, and ask it; for others than TCP, nothing.

A host that vanished without a word never acknowledges what it is sent, a heartbeat at the latest.
TCP_USER_TIMEOUT drops such a connection, but also one whose client has only stopped reading for as
long.  Where that must live on, `silent_for` tells the two apart: a host that is there
acknowledges what it is sent, and the kernel's probes of its closed window.
"""

from __future__ import annotations

import _socket
import socket
import struct
import sys
from fcntl import ioctl
from termios import TIOCOUTQ
from typing import Any

_TCP = socket.IPPROTO_TCP
_NOTSENT_LOWAT: int | None = getattr(socket, "TCP_NOTSENT_LOWAT", None)
_USER_TIMEOUT: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)
_NONE = bytes(4)  # a C int

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
    if _NOTSENT_LOWAT is not None:
        try:
            connected.setsockopt(_TCP, _NOTSENT_LOWAT, size)
        except OSError:
            return  # Not TCP.


def wait_for_answers(descriptor: int, seconds: float) -> None:
    """Drop the connection once bytes are unacknowledged for that long; 0 for the default."""
    if _USER_TIMEOUT is not None:
        view = _view(descriptor)
        try:
            view.setsockopt(_TCP, _USER_TIMEOUT, min(round(seconds * 1000), 2**31 - 1))
        except OSError:
            pass  # Not TCP.
        finally:
            view.detach()


def has_sent_all(descriptor: int) -> bool:
    """Whether the other host has taken all that was written; true where that is not known."""
    if sys.platform != "linux":
        return True
    try:
        # SIOCOUTQ of linux/sockios.h, by its other name: bytes that are not acknowledged.
        return ioctl(descriptor, TIOCOUTQ, _NONE) == _NONE
    except OSError:
        return True


def silent_for(descriptor: int) -> float:
    """Seconds since the last acknowledgement, or 0 if none is due."""
    if sys.platform != "linux":  # Elsewhere there is no TCP_INFO, or it has other fields.
        return 0.0
    view = _view(descriptor)
    try:
        info = view.getsockopt(_TCP, socket.TCP_INFO, 60)
    except OSError:
        return 0.0
    finally:
        view.detach()
    # struct tcp_info of linux/tcp.h: tcpi_unacked and tcpi_last_ack_recv, in milliseconds.
    unacknowledged, last = struct.unpack_from("=I28xI", info, 24)
    return last / 1000 if unacknowledged else 0.0


def _view(descriptor: int) -> _socket.socket:
    """Return a socket of a descriptor; to be detached again before anybody could close it."""
    return _socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, descriptor)
