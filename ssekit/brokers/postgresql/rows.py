"""What the functions of a log return, as entries and cursors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from ssekit.brokers.codec import id_of
from ssekit.brokers.contract import Entry, HistoryLost


class Answer(NamedTuple):
    """A row of the type ``answer``; one of what was written ends with the time."""

    word: str
    detail: str | None
    epoch: int
    seq: int
    at: float
    channel: bytes = b""
    key: bytes | None = None
    passing: bool = False
    body: bytes = b""

    @property
    def cursor(self) -> str:
        """Its place in the log."""
        return id_of(self.epoch, self.seq)

    @property
    def entry(self) -> Entry:
        """The entry that it is."""
        key = None if self.key is None else self.key.decode()
        return Entry(self.cursor, self.channel.decode(), self.body, key, self.passing, self.at)

    def stored(self, channel: str, body: bytes, key: str | None, *, passing: bool = False) -> Entry:
        """Return what was given, with the place and time that it has got."""
        return Entry(self.cursor, channel, body, key, passing, self.at)


def answers(rows: Iterable[tuple[Any, ...]], after: str = "") -> list[Answer]:
    """Return rows by their fields.

    Raises `HistoryLost` if the first says that the cursor ``after`` is not in the log.
    """
    found = [Answer(*row) for row in rows]
    if found and found[0].word == "lost":
        raise HistoryLost(f"{after}: {found[0].detail}")
    return found
