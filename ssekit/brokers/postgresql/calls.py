"""Calls of a log's functions, and making the log where there is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ssekit.brokers import contract
from ssekit.brokers.contract import HistoryLost, Retention
from ssekit.brokers.postgresql.connections import Connections, Lent
from ssekit.brokers.postgresql.line import Backlog, Damaged, Line, NoLog
from ssekit.brokers.postgresql.place import create as create_log
from ssekit.brokers.postgresql.place import look
from ssekit.brokers.postgresql.rows import Answer, answers
from ssekit.brokers.postgresql.schema import Schema
from ssekit.errors import BrokerUnavailable


class Calls:
    """The functions of one log, each of which is one transaction."""

    def __init__(self, connections: Connections, schema: Schema, retention: Retention) -> None:
        self._connections = connections
        self._schema = schema
        self._retention = retention
        self.after_fork()

    def after_fork(self) -> None:
        """Begin again, with nothing known of the log."""
        self._settled = not self._retention.given

    def settle(self, *, anew: bool = False) -> None:
        """Write what was given into the log, which is created in an empty place."""
        self._connections.check_open()
        if not self._settled:
            kept = self._retention
            self.ask(
                self._connections.writer,
                f"SELECT {{}}.settle({_bounds()}, %s, %s, %s, %s, %s)",
                (
                    *(sorted(kept.given), kept.history, kept.capacity),
                    *(kept.max_keys, kept.max_age),
                ),
                create=True,
                anew=anew,
            )
            self._settled = True

    def write(self, function: str, *arguments: object, anew: bool = False) -> Answer:
        """Call a function that writes, in a log that is created if there is none."""
        self.settle(anew=anew)
        rows = self.ask(
            self._connections.writer,
            self.text(function, len(arguments), "word, detail, epoch, seq, at", bounded=True),
            arguments,
            writes=True,
            create=True,
            anew=anew,
        )
        return Answer(*rows[0])

    def read(
        self, function: str, *arguments: object, after: str | None = None, create: bool = False
    ) -> list[Answer]:
        """Call a function that reads; `HistoryLost` if ``after`` is not in the log."""
        text = self.text(function, len(arguments))
        try:
            rows = self.ask(self._connections.reader, text, arguments, create=create)
        except NoLog:
            if after is None:
                raise
            raise HistoryLost(f"{after}: there is no log") from None
        return answers(rows, after or "")

    def sequence(self, *, create: bool = False) -> bool:
        """Give what transactions have committed its place in the log; false if there is nothing."""
        moved, said = False, "more"
        while said == "more":
            said = self._sequence_some(create=create)
            moved = moved or said != "nothing"
        return moved

    def _sequence_some(self, *, create: bool) -> str:
        rows = self.ask(self._connections.writer, _sequence(), (), create=create)
        return str(rows[0][0])

    def rows(self, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
        """Return the rows of a statement that reads tables; none where there is no log."""
        try:
            return self.ask(self._connections.reader, statement, arguments)
        except NoLog:
            return []

    def ask(
        self,
        lend: Callable[[], Lent],
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
        statement = self.in_schema(statement)
        problem: Exception
        for _ in range(3):
            with lend() as line:
                try:
                    return self._call(line, statement, arguments, writes=writes)
                except (NoLog, Damaged) as error:
                    problem = error
                if isinstance(problem, Damaged) and not anew:
                    raise BrokerUnavailable(
                        f"the log is damaged ({problem}): the next publish starts a new one"
                    ) from problem
                if not self._put_right(line, create=create, anew=anew):
                    raise problem
        raise BrokerUnavailable(f"the log is made and dropped again and again: {problem}")

    def _call(
        self, line: Line, statement: str, arguments: tuple[object, ...], *, writes: bool
    ) -> list[tuple[Any, ...]]:
        while True:
            try:
                return line.call(statement, arguments, writes=writes)
            except Backlog:
                # Some at a time: in transactions of their own, which others see as they end.
                line.call(self.in_schema(_sequence()), (), writes=False)

    def text(
        self, function: str, arguments: int, fields: str = "*", *, bounded: bool = False
    ) -> str:
        """Return the statement that calls a function; ``bounded``: the bounds come first."""
        places = ", ".join([*([_bounds()] if bounded else []), *["%s"] * arguments])
        return f"SELECT {fields} FROM {self._schema.quoted}.{function}({places})"  # noqa: S608 - our names

    def in_schema(self, statement: str) -> str:
        """Return a statement with the schema's name in the place of ``{}``."""
        return statement.replace("{}", self._schema.quoted)

    def _put_right(self, line: Line, *, create: bool, anew: bool) -> bool:
        """Create a missing or damaged log, if that is allowed; return whether there is one."""
        with line.refusals():
            found = look(line.connection, self._schema)
            if found == "empty" and not create:
                return False
            if found != "log" and create_log(
                line.connection, self._schema, self._retention, anew=anew
            ):
                self._settled = True
        return True


def _sequence() -> str:
    return f"SELECT {{}}.sequence({_bounds()})"


def _bounds() -> str:
    """Return the bounds of the contract, in the order in which the functions have them.

    They are a part of the statement's text: an array takes psycopg long to pass.
    """
    bounds = (
        *(contract.RECENT, contract.CHANNELS_REMEMBERED, contract.EPOCHS_REMEMBERED),
        *(contract.END_REMEMBERED, contract.MOST_PRODUCED, contract.INTERNAL_KEPT),
    )
    return "'{{{}}}'".format(",".join(map(repr, bounds)))
