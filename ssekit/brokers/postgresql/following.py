"""Following a log in PostgreSQL, and looking after the outbox while doing so.

One connection waits for notifications of new entries.  One process of all looks at the outbox many
times a second, for the transactions whose commit nobody saw; the others ask in turn whether it
still does.  Through a pooler, which keeps notifications from us, asking is also how new entries are
found.  Whoever finds some wakes the other processes of its machine, and asks often for a while, as
they need not then.
"""

from __future__ import annotations

import logging
import secrets
import time

from ssekit import host
from ssekit.brokers import contract
from ssekit.brokers.codec import parse_id
from ssekit.brokers.contract import Entry, HistoryLost
from ssekit.brokers.postgresql.calls import Calls
from ssekit.brokers.postgresql.connections import Connections
from ssekit.brokers.postgresql.followers import Followers
from ssekit.brokers.postgresql.line import Damaged, Line, NoLog
from ssekit.brokers.postgresql.rows import Answer, answers
from ssekit.errors import BrokerUnavailable, HubClosed

_log = logging.getLogger("ssekit.brokers")

# In a log that is quiet, all processes together look less than 50 times a second.
_POLL = 0.025  # seconds between looks at the outbox, by the one process that watches it
_APART = 1 / 6  # seconds between two of the others' turns to ask whether it still does
_ASK = 1.0  # seconds after which one of them asks at the soonest
_QUIET = 0.6  # and through a pooler
_BUSY = 2.0  # seconds after an entry for which a log is not quiet
_VACUUM = 5000  # entries after which the process that watches gives back room
_TERM = 3.0  # seconds after which one that has not looked is taken for dead


class Following:
    """How one process follows."""

    def __init__(self, connections: Connections, calls: Calls, followers: Followers) -> None:
        self._connections = connections
        self._calls = calls
        self._followers = followers
        self.after_fork()

    def after_fork(self) -> None:
        """Begin again, as another process."""
        self._me = secrets.token_hex(8)
        self._vacuumed: int | None = None  # the seq at which it was vacuumed last
        self._busy_until = 0.0  # by the monotonic clock

    def follow(self, after: str, timeout: float) -> tuple[list[Entry], str]:
        """Wait for entries, as the contract says."""
        self._connections.check_open()
        epoch, seq = parse_id(after)
        deadline = time.monotonic() + timeout
        with self._connections.follower() as line, self._followers.waiting() as wakeup:
            line.listen()
            newer = True
            while True:
                self._connections.check_open()
                if newer and (entries := self._newer(line, after, epoch, seq)):
                    return entries, entries[-1].id
                now = time.monotonic()
                if now >= line.next_look:
                    pause, tip = self._look(line, after, now)
                    line.next_look = now + pause
                    newer = tip != seq
                    if newer:
                        self._busy_until = now + _BUSY
                        self._followers.notify_others()
                        continue
                if now >= deadline:
                    return [], after
                pause = max(0.0, min(line.next_look, deadline) - time.monotonic())
                newer = line.wait(wakeup, pause)

    def _newer(self, line: Line, after: str, epoch: int, seq: int) -> list[Entry]:
        arguments = (epoch, seq, contract.RECENT, contract.BATCH, contract.BATCH_BYTES)
        return [answer.entry for answer in self._call(line, after, "follow", *arguments)]

    def _look(self, line: Line, after: str, now: float) -> tuple[float, int]:
        """Look after the outbox, if no other process does.

        Returns the seconds until the next look, and the log's last seq.
        """
        often = line.pooled and now < self._busy_until
        apart = None if often else _APART
        (found,) = self._call(line, after, "look", self._me, _TERM, apart, bounded=True)
        if found.word == "watches":
            self._vacuum_after(found.seq)
            return 0.0 if found.detail == "more" else _POLL, found.seq
        if often:
            return _POLL, found.seq
        return max(found.at, _QUIET if line.pooled else _ASK), found.seq

    def _call(
        self, line: Line, after: str, function: str, *arguments: object, bounded: bool = False
    ) -> list[Answer]:
        """Call a function of the log, which nobody may have taken away."""
        statement = self._calls.text(function, len(arguments), bounded=bounded)
        try:
            # Not even `look` stores anything of its caller's: it moves what was committed.
            rows = line.call(statement, arguments, writes=False)
        except NoLog:
            raise HistoryLost(f"{after}: there is no log") from None
        except Damaged as error:
            raise BrokerUnavailable(f"the log is damaged: {error}") from error
        return answers(rows, after)

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
                self._connections.maintain(self._calls.in_schema(f"VACUUM {{}}.{table}"))
        except (HubClosed, BrokerUnavailable) as error:
            _log.info("the log was not vacuumed: %s", error)
