"""What is read of a log in Redis: in pieces, as no script may keep the server busy for long.

An opening is of one moment though it comes in pieces: its script lists everything, and has some
of the entries; the others are fetched afterwards.  An entry without a key never changes.  Where one
of a key was superseded meanwhile, what happened since is read as a client would read it, and the
moment is that of the end of this.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from ssekit.brokers.codec import id_of, parse_id
from ssekit.brokers.contract import Entry, HistoryLost, Opening
from ssekit.brokers.redis.records import END, KEYED, REMOVAL, Record, unpack
from ssekit.brokers.redis.scripts import Scripts
from ssekit.errors import BrokerUnavailable

_RECORDS = 1000  # entries that one call asks for at most
_TRIES = 5  # for an opening whose log is trimmed while it is read


class Reading:
    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    def check(self, cursor: str) -> None:
        """Raise `HistoryLost` if a cursor is not in the log."""
        answer = self._scripts.read("check", *parse_id(cursor), after=cursor)
        if answer is None:
            raise HistoryLost(f"{cursor}: there is no log")

    def tip(self) -> str:
        tip: bytes = self._existing("tip")[1]
        return tip.decode()

    def read(self, channels: Collection[str], after: str, limit: int) -> tuple[list[Record], str]:
        """Return what the contract says, with the kind of each entry."""
        epoch, seq = parse_id(after)
        answer = self._scripts.read("read", epoch, seq, limit, *set(channels), after=after)
        if answer is None:
            raise HistoryLost(f"{after}: there is no log")
        _, reached, tip, *rest = answer
        records = list(_records(rest))
        # All was looked at up to the last of them, or up to the log's end.
        if records and int(reached) == _seq(records[-1].entry):
            return records, records[-1].entry.id
        return records, tip.decode()

    def recent(self, limit: int) -> tuple[list[Entry], str]:
        _, tip, *rest = self._existing("recent", limit)
        entries = [record.entry for record in _records(rest)]
        return entries[::-1], tip.decode()

    def newer(self, after: str, limit: int) -> list[Entry]:
        """Return entries of any channel and kind after an entry of the log, as far as there are."""
        answer = self._scripts.read("newer", after, limit)
        return [] if answer is None else [record.entry for record in _records(answer[1:])]

    def ends(self, channels: Collection[str]) -> dict[str, Entry]:
        answer = self._scripts.read("ends", *set(channels))
        return {} if answer is None else _ends(answer[1])

    def history(self, channels: Collection[str], limit: int, before: str | None) -> list[Entry]:
        if before is None:
            return self._before(channels, limit, "", "")
        return self._before(channels, limit, *parse_id(before))

    def _before(
        self, channels: Collection[str], limit: int, epoch: int | str, before: int | str
    ) -> list[Entry]:
        """Return the last events before a seq, which is checked with its epoch if that is given."""
        found: list[Entry] = []  # the newest first
        cursor = id_of(int(epoch), int(before)) if epoch != "" else ""
        while limit > len(found):
            most = min(limit - len(found), _RECORDS)
            answer = self._scripts.read(
                "history", epoch, before, most, *set(channels), after=cursor
            )
            if answer is None:
                break
            _, on, expiry, *rest = answer
            found += _unexpired(_records(rest), int(expiry))
            if on == b"0":
                break
            epoch, before, cursor = "", int(on), ""
        return found[::-1]

    def opening(self, channels: Collection[str], replay: int | None) -> Opening:
        for _ in range(_TRIES):
            try:
                return self._opening(channels, replay)
            except HistoryLost:
                continue
        raise BrokerUnavailable("the log forgets events faster than they can be read")

    def _opening(self, channels: Collection[str], replay: int | None) -> Opening:
        wanted = 1 << 53 if replay is None else replay
        answer = self._existing("opening", wanted, *set(channels))
        _, tip, expiry, complete, ends, count, more, seqs, on, rest = answer
        found = dict(zip(rest[::2], rest[1::2], strict=True))
        self._fetch(seqs[len(found) :], found)
        keyed = list(_records(_flat(seqs[:count], found)))
        history = _unexpired(_records(_flat(seqs[count:], found)), int(expiry))[::-1]
        opening = Opening(
            [record.entry for record in keyed],
            history,
            bool(complete) and None not in [found[seq] for seq in seqs[count:]],
            _ends(ends),
            tip.decode(),
        )
        if on != b"0" and wanted > len(history):
            earlier = self._before(channels, wanted - len(history), "", int(on))
            word = self._existing("complete", *set(channels))[0]
            opening = opening._replace(
                history=[*earlier, *history], complete=opening.complete and word == b"complete"
            )
        if more == b"0" and len(keyed) == count:
            return opening
        opening = opening._replace(state=[*opening.state, *self._more_keys(channels, more)])
        return self._caught_up(opening, channels, replay)

    def _more_keys(self, channels: Collection[str], after: bytes) -> Iterator[Entry]:
        while after != b"0":
            _, after, seqs = self._existing("keyed", int(after), *set(channels))
            found: dict[bytes, bytes | None] = {}
            self._fetch(seqs, found)
            yield from (record.entry for record in _records(_flat(seqs, found)))

    def _caught_up(
        self, opening: Opening, channels: Collection[str], replay: int | None
    ) -> Opening:
        """Return an opening with what has happened since."""
        state = {(entry.channel, entry.key): entry for entry in opening.state}
        history, ends, cursor = list(opening.history), dict(opening.ends), opening.tip
        while True:
            records, reached = self.read(channels, cursor, _RECORDS)
            for kind, entry in records:
                if kind == KEYED:
                    state[entry.channel, entry.key] = entry
                elif kind == REMOVAL:
                    state.pop((entry.channel, entry.key), None)
                elif kind == END:
                    ends[entry.channel] = entry
                else:
                    history.append(entry)
            if reached == cursor:
                break
            cursor = reached
        if replay is not None:
            history = history[max(0, len(history) - replay) :]
        return opening._replace(
            state=sorted(state.values(), key=_seq), history=history, ends=ends, tip=cursor
        )

    def _fetch(self, seqs: Sequence[bytes], found: dict[bytes, bytes | None]) -> None:
        """Add the records of some seqs to those found; None for those that are gone."""
        while seqs:
            answer = self._existing("records", *seqs[:_RECORDS])
            got = dict(zip(answer[1::2], answer[2::2], strict=True))
            found |= got
            seqs = seqs[len(got) :]

    def _existing(self, command: str, *arguments: object) -> list[Any]:
        """Call a command that reads, on a log that is created in an empty place."""
        answer = self._scripts.read(command, *arguments)
        if answer is None:
            self._scripts.write("tip")
            answer = self._scripts.read(command, *arguments)
        if answer is None:
            raise BrokerUnavailable("the log was deleted while it was read")
        return answer


def _records(flat: Sequence[bytes | None]) -> Iterator[Record]:
    """Yield the entries of seqs and their records in turn, but for those that are gone."""
    for seq, record in zip(flat[::2], flat[1::2], strict=True):
        if seq is not None and record is not None:
            yield unpack(seq, record)


def _flat(seqs: Sequence[bytes], found: dict[bytes, bytes | None]) -> list[bytes | None]:
    return [word for seq in seqs for word in (seq, found[seq])]


def _unexpired(records: Iterator[Record], expiry: int) -> list[Entry]:
    return [record.entry for record in records if record.entry.time * 1000 >= expiry]


def _ends(flat: Sequence[Any]) -> dict[str, Entry]:
    return {
        channel.decode(): unpack(seq, record).entry
        for channel, seq, record in zip(flat[::3], flat[1::3], flat[2::3], strict=True)
    }


def _seq(entry: Entry) -> int:
    return parse_id(entry.id)[1]
