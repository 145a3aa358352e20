"""Ids and cursors: how a log writes them, and how they are read back.

Every broker shares this.  It knows ids and numbers; it knows no log.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ssekit.brokers.contract import HistoryLost

# Sixteen digits stay within what a double holds exactly, which is what Lua and a Redis score are.
_ID = re.compile("(0|[1-9][0-9]{0,15})-(0|[1-9][0-9]{0,15})", re.ASCII)


def id_of(epoch: int, seq: int) -> str:
    return f"{epoch}-{seq}"


def parse_id(cursor: str) -> tuple[int, int]:
    """Return the epoch and seq of a cursor; raises `HistoryLost` if it never was one."""
    match = _ID.fullmatch(cursor)
    if match is None:
        raise HistoryLost(f"{cursor!r:.80} is not an id of a log")
    return int(match[1]), int(match[2])


def seq_in(cursor: str, epoch: int, tip: int, past: Mapping[int, int] = {}) -> int:
    """Return the seq of a cursor in the log of this epoch whose last seq is ``tip``.

    ``past`` has the log's earlier epochs, each with its last seq.  Raises `HistoryLost` if the
    cursor never was in the log, or no longer is.
    """
    theirs, seq = parse_id(cursor)
    last = tip if theirs == epoch else past.get(theirs)
    if last is None:
        raise HistoryLost(f"{cursor} belongs to another log than {epoch}")
    if seq > last:
        raise HistoryLost(f"{cursor} is not in the log, which then ended at {last}")
    return seq
