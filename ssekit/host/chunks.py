"""The chunks of an HTTP/1.1 body (RFC 9112, section 7.1), for those who write beside the server."""

from __future__ import annotations

from collections.abc import Sequence

LAST_CHUNK = b"0\r\n\r\n"
"""Ends a body in chunks; without it the client knows that the body was cut."""


def chunk(block: bytes, chunked: bool = True) -> bytes:
    """Return a block as the body has it: as one chunk, or as it is if the body has no chunks."""
    return b"%X\r\n%b\r\n" % (len(block), block) if chunked else block


def chunk_of(blocks: Sequence[bytes]) -> bytes:
    """Return some blocks, of which one at least is not empty, as one chunk."""
    return b"".join([b"%X\r\n" % sum(map(len, blocks)), *blocks, b"\r\n"])
