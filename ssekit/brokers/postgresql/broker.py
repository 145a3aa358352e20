"""``postgresql:``, a log in a PostgreSQL (13 or later), for many machines.

What happens in the log is done by its own functions, in ``sql/``: each call of the contract is one
call of one of them.  Writers take turns, by a lock in the database; readers wait for nobody.

An application can publish in its own transaction (`PostgreSQLBroker.append_in`).  Such an event
goes to the *outbox*, where it blocks nobody; after the commit, the first of these gives it its
place in the log: the next publish, a process that sees the commit, or the one process of all that
looks at the outbox many times a second.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from ssekit import host
from ssekit.brokers import contract
from ssekit.brokers.codec import id_of, parse_id
from ssekit.brokers.contract import (
    Broker,
    Entry,
    Held,
    HistoryLost,
    LeaseEnded,
    Opening,
    Retention,
    Status,
)
from ssekit.brokers.postgresql.connections import (
    Answer,
    Connections,
    Damaged,
    Line,
    NoLog,
    Pool,
)
from ssekit.brokers.postgresql.place import create as create_log
from ssekit.brokers.postgresql.place import look
from ssekit.brokers.postgresql.schema import Schema, split_url
from ssekit.brokers.postgresql.transactions import enqueue, sees_lock
from ssekit.errors import BrokerUnavailable, ChannelBusy, ChannelFinished, HubClosed, InvalidEvent
from ssekit.host.forks import on_fork
from ssekit.host.wakeup import Wakeups

_log = logging.getLogger("ssekit.brokers")

_POLL = 0.025  # seconds between looks at the outbox, by the one process that watches it
_ASK = 1.0  # seconds after which the others ask whether it still does
_VACUUM = 5000  # entries after which the process that watches gives back room
_TERM = 3.0  # seconds after which one that has not looked is taken for dead


class PostgreSQLBroker(Broker):
    def __init__(self, url: str, schema: Schema, retention: Retention) -> None:
        self._closed = False
        self._retention = retention
        self._schema = schema
        self._connections = Connections(url, schema)
        self._wakeups = Wakeups()
        self._begin()
        on_fork(self)

    def _begin(self) -> None:
        self._me = secrets.token_hex(8)
        self._settled = not self._retention.given
        self._identity: str | None = None  # of the log, once it is there
        self._vacuumed: int | None = None  # the seq at which it was vacuumed last

    @classmethod
    def from_url(cls, url: str, retention: Retention) -> PostgreSQLBroker:
        return cls(*split_url(url), retention)

    def after_fork(self) -> None:
        self._wakeups.abandon()
        self._connections.abandon()
        self._begin()

    # -- writing

    def append(
        self,
        channel: str,
        body: bytes,
        *,
        key: str | None = None,
        passing: bool = False,
        holder: str | None = None,
    ) -> Entry:
        name, its_key = channel.encode(), None if key is None else key.encode()
        answer = self._write("append", name, body, its_key, passing, holder, anew=True)
        self._check(channel, answer)
        return _stored(answer, channel, body, None if passing else key, passing=passing)

    def append_in(
        self,
        connection: object,
        channel: str,
        body: bytes,
        *,
        key: str | None = None,
        passing: bool = False,
    ) -> None:
        # The connection may be psycopg's, Django's or SQLAlchemy's, or an SQLAlchemy session.
        self._check_open()
        identity = self._log_identity()
        answer = enqueue(
            connection,
            self._in_schema("SELECT word, detail FROM {}.enqueue(%s, %s, %s, %s, %s, %s)"),
            (
                *(identity, contract.END_REMEMBERED, channel.encode(), body),
                *(None if key is None else key.encode(), passing),
            ),
            self._sequence,
        )
        if answer[0] == "finished":
            raise ChannelFinished(channel, answer[1])
        if answer[0] == "elsewhere":
            raise ValueError("the connection is to another database than the hub's")

    def is_in_database_of(self, connection: object) -> bool:
        # A lock that only we can hold is seen by those in the same database, and by nobody else;
        # addresses and names may differ, with a pooler for instance.
        self._check_open()
        lock = (secrets.randbits(31), secrets.randbits(31))
        with self._connections.lend(self._connections.writers) as line, line.locked(*lock):
            return sees_lock(connection, *lock)

    def _log_identity(self) -> str:
        if self._identity is None:
            rows = self._ask(self._connections.writers, "SELECT {}.identity()", (), create=True)
            self._identity = str(rows[0][0])
        return self._identity

    def _sequence(self) -> None:
        """Give what was just committed its place in the log."""
        try:
            self._sequence_committed()
        except (HubClosed, BrokerUnavailable, NoLog) as error:
            # It is committed: the next one that looks at the outbox does it.
            _log.warning("an event of a transaction arrives later: %s", error)

    def _sequence_committed(self, *, create: bool = False) -> None:
        self._ask(self._connections.writers, "SELECT {}.sequence(%s)", (_bounds(),), create=create)

    def remove(self, channel: str, key: str, body: bytes) -> Entry | None:
        answer = self._write("remove", channel.encode(), key.encode(), body)
        self._check(channel, answer)
        return None if answer.word == "nothing" else _stored(answer, channel, body, key)

    def finish(
        self, channel: str, body: bytes, reason: str, *, holder: str | None = None
    ) -> Entry | None:
        answer = self._write("finish", channel.encode(), body, reason, holder)
        return None if answer.word == "nothing" else _stored(answer, channel, body, None)

    def reopen(self, channel: str) -> bool:
        return self._write("reopen", channel.encode()).word == "reopened"

    # -- reading

    def read(self, channels: Collection[str], after: str, limit: int) -> tuple[list[Entry], str]:
        epoch, seq = self._parse(after)
        arguments = (_names(channels), epoch, seq, limit, contract.BATCH_BYTES)
        first, *rest = self._read("read", *arguments, after=after)
        entries = [_entry(row) for row in rest]
        size = sum(len(entry.body) for entry in entries)
        is_all = len(entries) < limit and size < contract.BATCH_BYTES
        return entries, _cursor(first) if is_all else entries[-1].id

    def follow(self, after: str, timeout: float) -> tuple[list[Entry], str]:
        epoch, seq = self._parse(after)
        deadline = time.monotonic() + timeout
        with self._wakeups.waiting() as wakeup, self._connections.follower() as line:
            line.listen()
            newer = True
            while True:
                self._check_open()
                if newer and (entries := self._newer(line, after, epoch, seq)):
                    return entries, entries[-1].id
                now = time.monotonic()
                if now >= line.next_look:
                    line.next_look = now + self._look(line, after)
                if now >= deadline:
                    return [], after
                pause = max(0.0, min(line.next_look, deadline) - time.monotonic())
                newer = line.wait(wakeup, pause) or line.pooled

    def _newer(self, line: Line, after: str, epoch: int, seq: int) -> list[Entry]:
        arguments = (epoch, seq, contract.RECENT, contract.BATCH, contract.BATCH_BYTES)
        try:
            rows = _answers(line.call(self._call("follow", 5), arguments, writes=False))
        except NoLog:
            raise HistoryLost(f"{after}: there is no log") from None
        except Damaged as error:
            raise BrokerUnavailable(f"the log is damaged: {error}") from error
        _check_lost(rows, after)
        return [_entry(row) for row in rows]

    def _look(self, line: Line, after: str) -> float:
        """Look after the outbox, if no other process does; return the seconds until the next."""
        statement = self._in_schema("SELECT {}.look(%s, %s, %s)")
        try:
            # It stores nothing of its caller's: what it moves is in the outbox or in the log.
            rows = line.call(statement, (_bounds(), self._me, _TERM), writes=False)
        except NoLog:
            raise HistoryLost(f"{after}: there is no log any more") from None
        except Damaged as error:
            raise BrokerUnavailable(f"the log is damaged: {error}") from error
        seq = rows[0][0]
        if seq is not None:
            self._vacuum_after(seq)
        return _POLL if seq is not None or line.pooled else _ASK

    def _vacuum_after(self, seq: int) -> None:
        """Give back the room of what was trimmed, after some thousand entries.

        PostgreSQL would look only once a minute, when a busy log has grown tenfold.
        """
        if self._vacuumed is None or seq < self._vacuumed:
            self._vacuumed = seq
        elif seq - self._vacuumed >= _VACUUM:
            self._vacuumed = seq
            host.begin(self._vacuum, "ssekit-vacuum")

    def _vacuum(self) -> None:
        # A user who does not own the tables gets a warning instead, which is not for the log.
        try:
            for table in ("entry", "channel", "tip", "outbox"):
                self._connections.maintain(f"VACUUM {self._schema.quoted}.{table}")
        except (HubClosed, BrokerUnavailable) as error:
            _log.info("the log was not vacuumed: %s", error)

    def recent(self, limit: int) -> tuple[list[Entry], str]:
        self._settle()
        self._sequence_committed(create=True)
        first, *rest = self._read("recent", contract.RECENT, limit, create=True)
        return [_entry(row) for row in rest], _cursor(first)

    def opening(self, channels: Collection[str], replay: int | None) -> Opening:
        self._settle()
        self._sequence_committed(create=True)
        arguments = (_names(channels), replay, contract.END_REMEMBERED)
        first, *rest = self._read("opening", *arguments, create=True)
        return Opening(
            state=[_entry(row) for row in rest if row.word == "value"],
            history=[_entry(row) for row in reversed(rest) if row.word == "event"],
            complete=first.detail == "complete",
            ends={row.channel.decode(): _entry(row) for row in rest if row.word == "end"},
            tip=_cursor(first),
        )

    def history(self, channels: Collection[str], limit: int, before: str | None) -> list[Entry]:
        epoch, seq = (None, None) if before is None else self._parse(before)
        arguments = (_names(channels), epoch, seq, limit)
        try:
            self._sequence_committed()
            rows = self._read("history", *arguments, after=before)
        except NoLog:
            if before is not None:
                raise HistoryLost(f"{before}: there is no log") from None
            return []
        return [_entry(row) for row in reversed(rows)]

    def ends(self, channels: Collection[str]) -> dict[str, Entry]:
        with suppress(NoLog):
            rows = self._read("ends", _names(channels), contract.END_REMEMBERED)
            return {row.channel.decode(): _entry(row) for row in rows}
        return {}

    def status(self, channel: str) -> Status:
        try:
            (answer,) = self._read("status", channel.encode(), contract.END_REMEMBERED)
        except NoLog:
            return Status("open")
        if answer.word == "finished":
            return Status("finished", answer.detail)
        return Status("producing" if answer.word == "producing" else "open")

    def tip(self) -> str:
        self._settle()
        self._sequence_committed(create=True)
        (answer,) = self._read("end_of_log", None, create=True)
        return _cursor(answer)

    def retention(self) -> Retention:
        statement = "SELECT history, capacity, max_keys, max_age FROM {}.log"
        try:
            rows = self._ask(self._connections.readers, statement, ())
        except NoLog:
            return self._retention.changed_by(self._retention)
        return Retention(*rows[0]).changed_by(self._retention)

    # -- leases

    def beat(self, holder: str, *, first: bool = False) -> bool:
        return self._write("beat", holder, first).word == "renewed"

    def leases(self) -> dict[str, int]:
        try:
            return dict(
                self._ask(self._connections.readers, "SELECT holder, beats FROM {}.lease", ())
            )
        except NoLog:
            return {}

    def end_lease(self, holder: str, beats: int) -> bool:
        return self._write("end_lease", holder, beats).word == "ended"

    def held(self, holder: str) -> list[Held]:
        statement = "SELECT channel, is_member, member FROM {}.held WHERE holder = %s"
        try:
            rows = self._ask(self._connections.readers, statement, (holder,))
        except NoLog:
            return []
        return [
            Held(channel.decode(), member.decode() if is_member else None)
            for channel, is_member, member in rows
        ]

    def produce(self, channel: str, holder: str) -> None:
        answer = self._write("produce", channel.encode(), holder)
        if answer.word == "busy":
            raise ChannelBusy(channel)
        self._check(channel, answer)
        _check_live(holder, answer)

    def join(self, channel: str, members: Mapping[str, bytes], holder: str) -> None:
        answer = self._write("join", channel.encode(), *_members(members), holder)
        self._check(channel, answer)
        _check_live(holder, answer)

    def leave(self, channel: str, members: Mapping[str, bytes], holder: str) -> None:
        self._write("leave", channel.encode(), *_members(members), holder)

    def close(self) -> None:
        self._closed = True
        self._wakeups.close()
        self._connections.close()

    # -- calls

    def _check_open(self) -> None:
        if self._closed:
            raise HubClosed("the hub is closed")

    def _parse(self, cursor: str) -> tuple[int, int]:
        self._check_open()
        return parse_id(cursor)

    def _check(self, channel: str, answer: Answer) -> None:
        if answer.word == "finished":
            raise ChannelFinished(channel, answer.detail)
        if answer.word == "taken":
            raise ChannelFinished(channel, None)
        if answer.word == "full":
            raise InvalidEvent(
                f"the channel {channel!r} has {answer.detail} keys already: remove some, or let it"
                " have more with Hub(max_keys=...)"
            )

    def _settle(self, *, anew: bool = False) -> None:
        """Write what was given into the log, which is created in an empty place."""
        self._check_open()
        if not self._settled:
            kept = self._retention
            self._ask(
                self._connections.writers,
                "SELECT {}.settle(%s, %s, %s, %s, %s, %s)",
                (
                    *(_bounds(), sorted(kept.given), kept.history, kept.capacity),
                    *(kept.max_keys, kept.max_age),
                ),
                create=True,
                anew=anew,
            )
            self._settled = True

    def _write(self, function: str, *arguments: object, anew: bool = False) -> Answer:
        """Call a function that writes, in a log that is created if there is none."""
        self._check_open()
        self._settle(anew=anew)
        statement = self._call(function, len(arguments) + 1)
        rows = self._ask(
            self._connections.writers,
            statement,
            (_bounds(), *arguments),
            writes=True,
            create=True,
            anew=anew,
        )
        self._wakeups.notify()
        return Answer(*rows[0])

    def _read(
        self, function: str, *arguments: object, after: str | None = None, create: bool = False
    ) -> list[Answer]:
        """Call a function that reads; `HistoryLost` if ``after`` is not in the log."""
        self._check_open()
        statement = self._call(function, len(arguments))
        try:
            rows = _answers(
                self._ask(self._connections.readers, statement, arguments, create=create)
            )
        except NoLog:
            if after is None:
                raise
            raise HistoryLost(f"{after}: there is no log") from None
        _check_lost(rows, after or "")
        return rows

    def _call(self, function: str, arguments: int) -> str:
        places = ", ".join(["%s"] * arguments)
        return f"SELECT * FROM {self._schema.quoted}.{function}({places})"  # noqa: S608 - our names

    def _in_schema(self, statement: str) -> str:
        return statement.replace("{}", self._schema.quoted)

    def _ask(
        self,
        pool: Pool,
        statement: str,
        arguments: tuple[object, ...],
        *,
        writes: bool = False,
        create: bool = False,
        anew: bool = False,
    ) -> list[tuple[Any, ...]]:
        """Carry out a statement of one transaction.

        ``create``: an empty place becomes a log, else it is `NoLog`.  ``anew``: so does a damaged
        log, which is then lost.
        """
        self._check_open()
        statement = self._in_schema(statement)
        for _ in range(3):
            with self._connections.lend(pool) as line:
                try:
                    return line.call(statement, arguments, writes=writes)
                except (NoLog, Damaged) as error:
                    problem = error
                if isinstance(problem, Damaged) and not anew:
                    raise BrokerUnavailable(
                        f"the log is damaged ({problem}): the next publish begins it anew"
                    ) from problem
                if not self._put_right(line, create=create, anew=anew):
                    raise problem
        raise BrokerUnavailable(f"the log is made and dropped again and again: {problem}")

    def _put_right(self, line: Line, *, create: bool, anew: bool) -> bool:
        """Make a log where there is none, if it may be made; false if not."""
        with line.refusals():
            found = look(line.connection, self._schema)
            if found == "empty" and not create:
                return False
            if found != "log" and create_log(
                line.connection, self._schema, self._retention, anew=anew
            ):
                self._settled = True
        return True


def _bounds() -> list[float]:
    return [
        float(contract.RECENT),
        float(contract.CHANNELS_REMEMBERED),
        float(contract.EPOCHS_REMEMBERED),
        float(contract.END_REMEMBERED),
        float(contract.MOST_PRODUCED),
    ]


def _names(channels: Collection[str]) -> list[bytes]:
    return [channel.encode() for channel in set(channels)]


def _members(members: Mapping[str, bytes]) -> tuple[list[bytes], list[bytes]]:
    return [member.encode() for member in members], list(members.values())


def _answers(rows: list[tuple[Any, ...]]) -> list[Answer]:
    return [Answer(*row) for row in rows]


def _entry(row: Answer) -> Entry:
    key = None if row.key is None else row.key.decode()
    return Entry(
        id_of(row.epoch, row.seq), row.channel.decode(), row.body, key, row.passing, row.at
    )


def _stored(
    answer: Answer, channel: str, body: bytes, key: str | None, *, passing: bool = False
) -> Entry:
    return Entry(id_of(answer.epoch, answer.seq), channel, body, key, passing, answer.at)


def _cursor(answer: Answer) -> str:
    return id_of(answer.epoch, answer.seq)


def _check_lost(rows: list[Answer], cursor: str) -> None:
    if rows and rows[0].word == "lost":
        raise HistoryLost(f"{cursor}: {rows[0].detail}")


def _check_live(holder: str, answer: Answer) -> None:
    if answer.word == "dead":
        raise LeaseEnded(f"the lease {holder} was ended")
