"""Those who follow a log: in this process, and behind a pooler in the others of this machine.

PostgreSQL itself wakes whoever listens to it.  Through a pooler nobody can, so that each process
would have to ask.  Then the first that finds something new wakes the others on its machine.
"""

from __future__ import annotations

import hashlib
import logging
from contextlib import AbstractContextManager

from ssekit.brokers.other_processes import OtherProcesses
from ssekit.brokers.postgresql.connections import Connections
from ssekit.host.state import state_folder
from ssekit.host.wakeup import Wakeup, Wakeups

_log = logging.getLogger("ssekit.brokers")


class Followers:
    """``name`` is that of the log, the same in each process that is to be woken."""

    def __init__(self, name: str, connections: Connections) -> None:
        self._name = hashlib.sha256(name.encode()).hexdigest()[:16]  # it may have a password in it
        self._connections = connections
        self._wakeups = Wakeups(self._wakeup)
        self._others: OtherProcesses | None = None
        self._alone = False
        """Whether there is no place where other processes could be found."""

    def waiting(self) -> AbstractContextManager[Wakeup]:
        """Lend a wake-up to a follower that has its connection, before it looks at the log."""
        return self._wakeups.waiting()

    def notify(self) -> None:
        """There is something new in the log."""
        self._wakeups.notify()
        self.notify_others()

    def notify_others(self) -> None:
        """Wake those in this machine's other processes, where a pooler keeps it from them."""
        if self._connections.pooled and (others := self._other_processes()):
            others.notify()

    def close(self) -> None:
        self._wakeups.close()
        if self._others is not None:
            self._others.close()

    def after_fork(self) -> None:
        """Forget the parent's."""
        self._wakeups.abandon()
        if self._others is not None:
            self._others.abandon()

    def _wakeup(self) -> Wakeup:
        if self._connections.pooled and (others := self._other_processes()):
            return others.wakeup()
        return Wakeup()

    def _other_processes(self) -> OtherProcesses | None:
        if self._others is None and not self._alone:
            try:
                # This stands for the log where `OtherProcesses` wants a file.
                file = state_folder() / f"{self._name}.pooled"
                file.touch(0o600)
            except (OSError, RuntimeError) as error:
                self._alone = True
                _log.warning("%s: events of other processes arrive with a delay", error)
            else:
                self._others = OtherProcesses(str(file))
        return self._others
