"""Ports of 127.0.0.1 for servers that tests and benches start."""

from __future__ import annotations

import itertools
import random
import socket

# Below the ports that Linux gives to who asks for any: there an outgoing connection of another
# test may take the port before the server has bound it.
_FIRST, _LAST = 10_000, 32_000
_next = itertools.count(random.randrange(_LAST - _FIRST))
_claims: list[socket.socket] = []


def free_port() -> int:
    """Return a port that nobody listens on and that is given to nobody else while we live.

    Test processes run side by side, and a server that finds its port taken may try again for
    seconds while its test talks to the one that has it.
    """
    for number in itertools.islice(_next, _LAST - _FIRST):
        port = _FIRST + number % (_LAST - _FIRST)
        if _claimed(port) and _bindable(port):
            return port
    raise AssertionError(f"no port from {_FIRST} to {_LAST} is free")


def _claimed(port: int) -> bool:
    """Take a name that only one process of the machine can have; it ends with the process."""
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0ssekit-test-port-{port}")
    except OSError:
        claim.close()
        return False
    _claims.append(claim)
    return True


def _bindable(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def answers(port: int) -> bool:
    """Tell whether somebody listens on the port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
