"""An open stream as the iterable of bytes that a WSGI server asks for its blocks (PEP 3333)."""

from __future__ import annotations

from collections.abc import Callable

from ssekit.host import wsgi_servers
from ssekit.stream.delivery import Delivery


class Body:
    """The opening, and then the blocks of the stream for as long as the server sends them."""

    def __init__(self, delivery: Delivery, opening: bytes) -> None:
        self._delivery: Delivery | None = delivery
        self._opening = opening
        self._next: Callable[[], bytes] = self._open

    def __iter__(self) -> Body:
        return self

    def __next__(self) -> bytes:
        return self._next()

    def _open(self) -> bytes:
        # The headers leave with the first block, so it must not wait for the source.
        self._next = self._attach
        delivery = self._delivery
        if delivery is not None:
            if delivery.leaves and delivery.leave_at_once(wsgi_servers.find(self), self._opening):
                return self._leave()
            delivery.stream.client.wrote(self._opening)
        return self._opening

    def _attach(self) -> bytes:
        # By now the server has sent the opening, so it can be seen whether all of it has left.
        delivery = self._delivery
        if delivery is None or delivery.attach(wsgi_servers.find(self)):
            return self._leave()
        self._next = delivery.next_block
        return self._next()

    def _leave(self) -> bytes:
        self._delivery = None
        self._next = _over
        return _over()

    def close(self) -> None:
        """End the stream; the server calls this at the end, also when the client has left."""
        self._next = _over  # No reference to ourselves: freed at once.
        delivery, self._delivery = self._delivery, None
        if delivery is not None:
            delivery.close()

    def __del__(self) -> None:
        # Middleware that forgets to call close() must not keep a source alive.
        if self._delivery is not None:
            self.close()


def _over() -> bytes:
    raise StopIteration
