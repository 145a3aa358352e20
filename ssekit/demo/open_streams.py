"""How many streams are open on a server, over all of its worker processes: the page shows it."""

from __future__ import annotations

import os
from pathlib import Path

from ssekit.host.shared_counters import join
from ssekit.stream import admission

STREAMS = "streams"


class OpenStreams:
    """The streams of this process and of those that share ``path`` with it; see `counters_file`."""

    def __init__(self, path: Path | None) -> None:
        self._shared = join(path, gauges=[STREAMS]) if path is not None else None
        self._process = 0

    def join(self) -> None:
        """Let the other processes see this one's streams from now on.

        To be called in the process that serves, which may be a fork of the one that made this.
        """
        if self._shared is not None and self._process != os.getpid():
            first, self._process = not self._process, os.getpid()
            # Before it is called while a lock is held: the first call opens the file.
            self._changed(admission.open_streams())
            if first:
                admission.observe(self._changed)

    def count(self) -> tuple[int, int]:
        """Return how many streams there are and in how many processes."""
        if self._shared is None:
            return admission.open_streams(), 1
        totals, processes = self._shared.totals()
        return totals[STREAMS], processes

    def _changed(self, number: int) -> None:
        if self._shared is not None:
            self._shared.set(STREAMS, number)
