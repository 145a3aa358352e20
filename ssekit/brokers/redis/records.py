"""Entries as Redis holds them: ``EPOCH MILLISECONDS`` of the script, then what was packed here."""

from __future__ import annotations

from typing import NamedTuple

from ssekit.brokers.codec import id_of
from ssekit.brokers.contract import Entry
from ssekit.errors import BrokerUnavailable

EVENT, KEYED, REMOVAL, PASSING, END = "event", "key", "removal", "passing", "end"
"""The kinds of entries."""

FIELD = b"ssekit"
"""The one field of an entry of the stream, which marks it as ours; `lua/keys.lua` has it too."""


class Record(NamedTuple):
    kind: str
    entry: Entry


def pack(kind: str, channel: str, key: str | None, body: bytes) -> bytes:
    """Return an entry without its id and time, as the scripts get it."""
    name, of_key = channel.encode(), b"" if key is None else key.encode()
    return b"%b %d %d %b%b%b" % (kind.encode(), len(name), len(of_key), name, of_key, body)


def entry_of(epoch: int, seq: int, milliseconds: int, packed: bytes) -> Record:
    """Return what was packed, as it was stored."""
    word, length, key_length, rest = packed.split(b" ", 3)
    after_name = int(length)
    after_key = after_name + int(key_length)
    kind = word.decode()
    return Record(
        kind,
        Entry(
            id_of(epoch, seq),
            rest[:after_name].decode(),
            rest[after_key:],
            rest[after_name:after_key].decode() if kind in (KEYED, REMOVAL) else None,
            kind == PASSING,
            milliseconds / 1000,
        ),
    )


def unpack(seq: bytes, record: bytes) -> Record:
    """Return the entry of a record, which has this seq, or an id that ends in it.

    Raises `BrokerUnavailable` for what is no record.
    """
    try:
        epoch, milliseconds, packed = record.split(b" ", 2)
        return entry_of(int(epoch), int(seq.rpartition(b"-")[2]), int(milliseconds), packed)
    except ValueError as error:
        raise BrokerUnavailable(f"entry {seq!r} of the log was not written by ssekit") from error


def entry_in_stream(entry_id: bytes, fields: list[bytes]) -> Entry:
    """Return an entry of the stream.  Raises `BrokerUnavailable` for somebody else's."""
    if len(fields) != 2 or fields[0] != FIELD:
        raise BrokerUnavailable(f"entry {entry_id!r} of the stream was not written by ssekit")
    return unpack(entry_id, fields[1]).entry
