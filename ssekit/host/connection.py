"""The connection under one answer: what a stream may ask the server that sends it.

`ssekit.host.wsgi_servers` has a subclass for each server that is known.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class Connection:
    """The connection under one answer, seen through the server's own objects for it.

    The base class is what every server has in common: a writing object that counts the bytes.
    """

    server: Any
    """The server's object whose ``write`` sends a block of the body."""
    answer: Any
    """The iterable that the server iterates, once there is one."""
    transparent = False
    """Whether only wrappers that pass blocks on unchanged stand between the server and us."""
    can_abandon = False
    """Whether the server can be told that the answer is complete while the connection goes on."""

    @property
    def capacity(self) -> int | None:
        """How many requests the server answers at once, if it says."""
        return None

    @property
    def socket(self) -> Any:
        """The client's socket, or None where the server hides it."""
        return None

    @property
    def chunked(self) -> bool:
        """Whether the server sends the body in chunks (RFC 9112, section 7.1)."""
        return False

    @property
    def sent(self) -> int:
        """How many bytes of the body the server was given."""
        raise NotImplementedError

    @property
    def headers(self) -> Iterable[tuple[str, str]]:
        """The headers of the answer, as the server sends them."""
        raise NotImplementedError

    def direct(self, given: int) -> bool:
        """Tell whether a block may be written beside the iterable.

        It may if nothing on the way changes or holds back bytes: the server was given just the
        ``given`` bytes that the stream gave, and none of the headers announces a coding.
        """
        return self.transparent and self.sent == given and not self.encoded

    @property
    def encoded(self) -> bool:
        """Whether a header announces a coding of the body."""
        # Streams open by the thousand, and a generator would cost more than the comparisons.
        return "content-encoding" in [name.lower() for name, _ in self.headers]

    def write(self, block: bytes) -> None:
        """Write a block as the server writes one; blocks as the server does."""
        self.server.write(block)

    def check(self) -> None:
        """Raise an exception if the server lacks something that is used later.

        What a server keeps in a local variable or a private attribute may be gone in its next
        version, and then the stream is served by the rules of PEP 3333 alone.
        """
        if not callable(self.server.write):
            raise TypeError("write is not callable")
        _ = self.socket, self.chunked, self.sent, self.headers, self.ending()

    def cut(self) -> None:
        """Make the server close the connection without the last chunk, once the iterable has ended.

        The client then knows that this was not the end of all events.  Where the body has no
        chunks there is no difference to see.
        """
        self.close_after()

    def abandon(self) -> bytes:
        """Make the server believe that the answer is complete, and close its own descriptor only.

        The one that has duplicated the descriptor goes on with the answer, once the iterable has
        ended: with the bytes that this returns, which are the headers unless the server has sent
        them, and then the body.  Only where `can_abandon`.
        """
        raise NotImplementedError

    def end(self) -> None:
        """End the body, unless it was `cut`, and close: only of one that was taken over."""

    def ending(self) -> bool:
        """Tell whether the process was told to end."""
        return False

    def close_after(self) -> None:
        """Make the server close the connection after this answer, instead of keeping it."""

    def expect_nothing(self) -> None:
        """Let a server that ends see the end of the connection at once when it looks for it."""


def plain(connected: Any) -> bool:
    """Tell whether bytes written to the descriptor reach the client as they are: not with TLS."""
    if connected is None or connected.fileno() < 0:
        return False
    # Its type is asked, as gevent's sockets take long to say that an attribute is missing.
    return not hasattr(type(connected), "getpeercert")
