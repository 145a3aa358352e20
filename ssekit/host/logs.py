"""Log lines about streams, written outside the event loop's callbacks.

A logging handler of the application may be slow, or yield to other greenlets: it must not do so in
the middle of what the event loop does for all clients.  So under gevent a `Logger` only notes the
line, and one greenlet writes what was noted, in order.  Elsewhere it is written at once, in the
thread that it is about.

At most `MOST` lines wait.  Those beyond are counted, and the count is logged.
"""

from __future__ import annotations

import atexit
import logging
import sys
import traceback
from collections import deque
from collections.abc import Mapping
from typing import Any

from ssekit.host.forks import on_fork
from ssekit.host.patched import main_hub

MOST = 10_000
"""Lines that wait to be written."""
AT_ONCE = 50
"""Lines written in one turn of the event loop."""
AT_EXIT = 1.0
"""Seconds that a process which exits gives the handlers."""


Fields = Mapping[str, object] | None


class Logger:
    """A logger of the standard library by its name, for lines that may be written later."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def writes_info(self) -> bool:
        """Tell whether `info` writes anything."""
        return self._logger.isEnabledFor(logging.INFO)

    def info(self, text: str, *arguments: object, fields: Fields = None) -> None:
        """Log as `logging.Logger.info` does.

        ``fields`` are what the line says, by name: an attribute of the record, for handlers that
        write something else than text.
        """
        self._log(logging.INFO, text, arguments, fields=fields)

    def warning(self, text: str, *arguments: object, fields: Fields = None) -> None:
        """Log as `logging.Logger.warning` does, with the fields of `info`."""
        self._log(logging.WARNING, text, arguments, fields=fields)

    def exception(self, text: str, *arguments: object) -> None:
        """Log as `logging.Logger.exception` does: with the traceback of the current exception."""
        self._log(logging.ERROR, text, arguments, sys.exc_info())

    def _log(
        self, level: int, text: str, arguments: Any, error: Any = None, fields: Fields = None
    ) -> None:
        logger = self._logger
        if logger.isEnabledFor(level):
            code = sys._getframe(2)
            where = code.f_code.co_filename, code.f_lineno
            name = code.f_code.co_name
            record = logger.makeRecord(logger.name, level, *where, text, arguments, error, name)
            record.fields = fields or {}
            _lines.put(logger, record)


class Printable(str):
    """A text of a client in a line: ASCII without line breaks and spaces, and so one field."""

    __slots__ = ()

    def __str__(self) -> str:
        return ascii(str.__str__(self))[1:-1].replace(" ", "\\x20")


class _Lines:
    """The lines of this process that are still to be written."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[logging.Logger, logging.LogRecord]] = deque()
        self._begun = 0  # lines that a handler has, and has not written yet
        self._lost = 0
        self._writing = False
        self._writer: Any = None  # the greenlet that writes
        on_fork(self)
        atexit.register(self._at_exit)

    def put(self, logger: logging.Logger, record: logging.LogRecord) -> None:
        hub = main_hub()
        if hub is None:
            logger.handle(record)
        elif len(self._waiting) >= MOST:
            self._lost += 1
        else:
            self._waiting.append((logger, record))
            if not self._writing:
                self._writing = True
                hub.loop.run_callback_threadsafe(self._start)

    def _start(self) -> None:
        import gevent

        if not self._writer:
            self._writer = gevent.spawn(self._write)

    def _write(self) -> None:
        from ssekit.host.turns import wait_for_next_turn

        try:
            while self._write_some():
                wait_for_next_turn()
        finally:
            self._writing = False

    def _write_some(self) -> bool:
        """Write some lines; false if there was none."""
        some = range(min(len(self._waiting), AT_ONCE))
        for _ in some:
            logger, record = self._waiting.popleft()
            self._begun += 1
            try:
                logger.handle(record)
            except Exception:  # A handler's own error: logging's way is to print it as well.
                traceback.print_exc()
            self._begun -= 1  # Unless the process ends in between: then the line is lost.
        if not self._waiting and self._lost:
            lost, self._lost = self._lost, 0
            logging.getLogger("ssekit").warning(
                "%d log lines were lost: a logging handler is too slow for them", lost
            )
        return bool(some)

    def after_fork(self) -> None:
        """Leave the parent's lines to the parent."""
        self._waiting.clear()
        self._begun = 0
        self._lost = 0
        self._writing = False
        self._writer = None

    def _at_exit(self) -> None:
        if not self._waiting and not self._begun:
            return
        self._start()
        self._writer.join(AT_EXIT)
        self._writer.kill()  # So that what is counted now is not written after all.
        if lost := len(self._waiting) + self._begun:
            print(f"ssekit: {lost} log lines were lost at exit", file=sys.stderr)


_lines = _Lines()
