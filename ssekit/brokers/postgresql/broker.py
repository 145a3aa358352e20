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
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress

from ssekit.brokers import contract
from ssekit.brokers.codec import parse_id
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
from ssekit.brokers.postgresql.calls import Calls
from ssekit.brokers.postgresql.connections import Connections
from ssekit.brokers.postgresql.followers import Followers
from ssekit.brokers.postgresql.following import Following
from ssekit.brokers.postgresql.line import NoLog
from ssekit.brokers.postgresql.rows import Answer
from ssekit.brokers.postgresql.schema import Schema, split_url
from ssekit.brokers.postgresql.transactions import enqueue, sees_lock
from ssekit.errors import BrokerUnavailable, ChannelBusy, ChannelFinished, HubClosed, InvalidEvent
from ssekit.host.forks import on_fork

_log = logging.getLogger("ssekit.brokers")


class PostgreSQLBroker(Broker):
    def __init__(self, url: str, schema: Schema, retention: Retention) -> None:
        self._retention = retention
        self._connections = Connections(url, schema)
        self._calls = Calls(self._connections, schema, retention)
        self._followers = Followers(f"{url} {schema.name}", self._connections)
        self._following = Following(self._connections, self._calls, self._followers)
        self._identity: str | None = None  # of the log, once it is there
        on_fork(self)

    @classmethod
    def from_url(cls, url: str, retention: Retention) -> PostgreSQLBroker:
        return cls(*split_url(url), retention)

    def after_fork(self) -> None:
        self._followers.after_fork()
        self._connections.abandon()
        self._calls.after_fork()
        self._following.after_fork()
        self._identity = None

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
        _check(channel, answer)
        return answer.stored(channel, body, None if passing else key, passing=passing)

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
        self._connections.check_open()
        identity = self._log_identity()
        answer = enqueue(
            connection,
            self._calls.in_schema("SELECT word, detail FROM {}.enqueue(%s, %s, %s, %s, %s, %s)"),
            (
                *(identity, contract.END_REMEMBERED, channel.encode(), body),
                *(None if key is None else key.encode(), passing),
            ),
            self._committed,
        )
        if answer[0] == "finished":
            raise ChannelFinished(channel, answer[1])
        if answer[0] == "elsewhere":
            raise ValueError("the connection is to another database than the hub's")

    def is_in_database_of(self, connection: object) -> bool:
        # A lock that only we can hold is seen by those in the same database, and by nobody else;
        # addresses and names may differ, with a pooler for instance.
        self._connections.check_open()
        lock = (secrets.randbits(31), secrets.randbits(31))
        with self._connections.writer() as line, line.locked(*lock):
            return sees_lock(connection, *lock)

    def _log_identity(self) -> str:
        if self._identity is None:
            rows = self._calls.ask(
                self._connections.writer, "SELECT {}.identity()", (), create=True
            )
            self._identity = str(rows[0][0])
        return self._identity

    def _committed(self) -> None:
        """Give what was just committed its place in the log."""
        try:
            self._sequence()
        except (HubClosed, BrokerUnavailable, NoLog) as error:
            # It is committed: the next one that looks at the outbox does it.
            _log.warning("an event of a transaction arrives later: %s", error)

    def remove(self, channel: str, key: str, body: bytes) -> Entry | None:
        answer = self._write("remove", channel.encode(), key.encode(), body)
        _check(channel, answer)
        return None if answer.word == "nothing" else answer.stored(channel, body, key)

    def finish(
        self, channel: str, body: bytes, reason: str, *, holder: str | None = None
    ) -> Entry | None:
        answer = self._write("finish", channel.encode(), body, reason, holder)
        return None if answer.word == "nothing" else answer.stored(channel, body, None)

    def reopen(self, channel: str) -> bool:
        return self._write("reopen", channel.encode()).word == "reopened"

    # -- reading

    def read(self, channels: Collection[str], after: str, limit: int) -> tuple[list[Entry], str]:
        epoch, seq = self._parse(after)
        arguments = (_names(channels), epoch, seq, limit, contract.BATCH_BYTES)
        first, *rest = self._calls.read("read", *arguments, after=after)
        entries = [row.entry for row in rest]
        size = sum(len(entry.body) for entry in entries)
        is_all = len(entries) < limit and size < contract.BATCH_BYTES
        return entries, first.cursor if is_all else entries[-1].id

    def follow(self, after: str, timeout: float) -> tuple[list[Entry], str]:
        return self._following.follow(after, timeout)

    def recent(self, limit: int) -> tuple[list[Entry], str]:
        self._calls.settle()
        self._sequence(create=True)
        first, *rest = self._calls.read("recent", contract.RECENT, limit, create=True)
        return [row.entry for row in rest], first.cursor

    def opening(self, channels: Collection[str], replay: int | None) -> Opening:
        self._calls.settle()
        self._sequence(create=True)
        arguments = (_names(channels), replay, contract.END_REMEMBERED)
        first, *rest = self._calls.read("opening", *arguments, create=True)
        return Opening(
            state=[row.entry for row in rest if row.word == "value"],
            history=[row.entry for row in reversed(rest) if row.word == "event"],
            complete=first.detail == "complete",
            ends={row.channel.decode(): row.entry for row in rest if row.word == "end"},
            tip=first.cursor,
        )

    def history(self, channels: Collection[str], limit: int, before: str | None) -> list[Entry]:
        epoch, seq = (None, None) if before is None else self._parse(before)
        arguments = (_names(channels), epoch, seq, limit)
        try:
            self._sequence()
            rows = self._calls.read("history", *arguments, after=before)
        except NoLog:
            if before is not None:
                raise HistoryLost(f"{before}: there is no log") from None
            return []
        return [row.entry for row in reversed(rows)]

    def ends(self, channels: Collection[str]) -> dict[str, Entry]:
        with suppress(NoLog):
            rows = self._calls.read("ends", _names(channels), contract.END_REMEMBERED)
            return {row.channel.decode(): row.entry for row in rows}
        return {}

    def status(self, channel: str) -> Status:
        try:
            (answer,) = self._calls.read("status", channel.encode(), contract.END_REMEMBERED)
        except NoLog:
            return Status("open")
        if answer.word == "finished":
            return Status("finished", answer.detail)
        return Status("producing" if answer.word == "producing" else "open")

    def tip(self) -> str:
        self._calls.settle()
        self._sequence(create=True)
        (answer,) = self._calls.read("end_of_log", None, create=True)
        return answer.cursor

    def retention(self) -> Retention:
        rows = self._calls.rows("SELECT history, capacity, max_keys, max_age FROM {}.log")
        found = Retention(*rows[0]) if rows else self._retention
        return found.changed_by(self._retention)

    # -- leases

    def beat(self, holder: str, *, first: bool = False) -> bool:
        return self._write("beat", holder, first).word == "renewed"

    def leases(self) -> dict[str, int]:
        return dict(self._calls.rows("SELECT holder, beats FROM {}.lease"))

    def end_lease(self, holder: str, beats: int) -> bool:
        return self._write("end_lease", holder, beats).word == "ended"

    def held(self, holder: str) -> list[Held]:
        statement = "SELECT channel, is_member, member FROM {}.held WHERE holder = %s"
        rows = self._calls.rows(statement, holder)
        return [
            Held(channel.decode(), member.decode() if is_member else None)
            for channel, is_member, member in rows
        ]

    def produce(self, channel: str, holder: str) -> None:
        answer = self._write("produce", channel.encode(), holder)
        if answer.word == "busy":
            raise ChannelBusy(channel)
        _check(channel, answer)
        _check_live(holder, answer)

    def join(self, members: Mapping[tuple[str, str], bytes], holder: str) -> None:
        answer = self._write("join", *_members(members), holder)
        _check_live(holder, answer)

    def leave(self, members: Mapping[tuple[str, str], bytes], holder: str) -> None:
        self._write("leave", *_members(members), holder)

    def close(self) -> None:
        self._connections.close()
        self._followers.close()

    def _write(self, function: str, *arguments: object, anew: bool = False) -> Answer:
        answer = self._calls.write(function, *arguments, anew=anew)
        self._followers.notify()
        return answer

    def _sequence(self, *, create: bool = False) -> None:
        if self._calls.sequence(create=create):
            self._followers.notify()

    def _parse(self, cursor: str) -> tuple[int, int]:
        self._connections.check_open()
        return parse_id(cursor)


def _names(channels: Collection[str]) -> list[bytes]:
    return [channel.encode() for channel in set(channels)]


def _members(members: Mapping[tuple[str, str], bytes]) -> Iterator[list[bytes]]:
    yield [channel.encode() for channel, _ in members]
    yield [member.encode() for _, member in members]
    yield [*members.values()]


def _check(channel: str, answer: Answer) -> None:
    if answer.word == "finished":
        raise ChannelFinished(channel, answer.detail)
    if answer.word == "taken":
        raise ChannelFinished(channel, None)
    if answer.word == "full":
        raise InvalidEvent(
            f"the channel {channel!r} has {answer.detail} keys already: remove some, or let it"
            " have more with Hub(max_keys=...)"
        )


def _check_live(holder: str, answer: Answer) -> None:
    if answer.word == "dead":
        raise LeaseEnded(f"the lease {holder} was ended")
