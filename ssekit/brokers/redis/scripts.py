"""The Lua scripts: how they are put together and called, and what their first word means.

All that a call does happens in one script, so that nobody sees half of it, and a script has all of
a log's keys.  They are sent once to each server, and then named by their SHA-1.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from ssekit.brokers import contract
from ssekit.brokers.contract import HistoryLost, Retention
from ssekit.brokers.redis.connections import RUN, Connections, Prepared
from ssekit.errors import BrokerUnavailable

_FOLDER = Path(__file__).parent / "lua"
_SIDE_KEYS = (
    *("log", "entries", "index", "keys", "trimmed", "oldest", "lengths", "past"),
    *("ends", "endings", "produced", "done", "leases", "held", "present", "removals"),
)


Bounds = tuple[tuple[str, float | str], ...]


class _Script:
    """A script of some parts and bounds."""

    def __init__(self, parts: tuple[str, ...], bounds: Bounds) -> None:
        texts = [(_FOLDER / f"{part}.lua").read_text("utf-8") for part in parts]
        # Without comments, which are half of it.
        text = re.sub(r"(?m)^\s*--.*\n|  -- .*$", "", "\n".join(texts))
        table = ", ".join(f"{name} = {_literal(value)}" for name, value in bounds)
        self.source = f"local bounds = {{{table}}}\n{text}"
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()


def _literal(value: float | str) -> str:
    """Return a value as Lua writes it."""
    if not isinstance(value, str):
        return repr(value)
    return "'{}'".format("".join(f"\\{byte:03d}" for byte in value.encode()))


def _bounds() -> Bounds:
    return (
        ("recent", contract.RECENT),
        ("channels_remembered", contract.CHANNELS_REMEMBERED),
        ("epochs_remembered", contract.EPOCHS_REMEMBERED),
        ("end_remembered", contract.END_REMEMBERED),
        ("most_produced", contract.MOST_PRODUCED),
        ("internal", contract.INTERNAL),
        ("internal_kept", contract.INTERNAL_KEPT),
        ("bytes", contract.BATCH_BYTES),
    )


_WRITE = ("keys", "ordinary", "log", "retention", "write", "leases", "writing")
_READ = ("keys", "log", "read")

_LOST = {
    b"empty": "there is no log yet, or no more",
    b"damaged": "a part of the log is missing",
    b"another": "it belongs to another log",
    b"future": "the log does not reach as far",
    b"trimmed": "events after it are no longer kept",
}


class Scripts:
    """Calls the scripts for the log that a stream's name stands for."""

    def __init__(self, connections: Connections, stream: str, retention: Retention) -> None:
        tag = re.search(r"\{([^{}]+)\}", stream)
        if not tag and re.search("[{}]", stream):
            raise ValueError(f"stream={stream!r}: braces hold a cluster's hash tag, as in {{a}}b")
        # In a cluster, keys with the same part in braces live on the same server.
        prefix = stream if tag else f"{{{stream}}}"
        self.keys = (stream, *(f"{prefix}:{name}" for name in _SIDE_KEYS))
        self._connections = connections
        self._retention = retention
        self._settings = json.dumps(
            {
                name: getattr(retention, name)
                for name in ("history", "capacity", "max_keys", "max_age")
                if getattr(retention, name) is not None
            }
        )
        self._given = json.dumps({name: getattr(retention, name) or "" for name in retention.given})
        self._prepared: dict[tuple[object, ...], tuple[Prepared, Prepared]] = {}
        self._settled = False  # whether what was given has been written into the log

    def retention(self) -> Retention:
        """Return the settings of the log, or where there is none those that it would get."""
        answer = self.read("retention")
        if answer is None:
            return self._retention
        history, capacity, max_keys, max_age = answer[1:]
        age = float(max_age) if max_age else None
        found = Retention(int(history), int(capacity), int(max_keys), age)
        return found.changed_by(self._retention)

    def begin(self) -> None:
        """Write what was given into the log, which is created in an empty place."""
        if not self._settled:
            self.write("tip")

    def abandon(self) -> None:
        """Begin again after a fork."""
        self._settled = False

    def write(self, command: str, *arguments: object) -> list[Any]:
        """Call a command that writes; it is carried out once or not at all."""
        answer = self._call(_WRITE, command, arguments, writes=True)
        self._check(answer)
        self._settled = True
        return answer

    def read(self, command: str, *arguments: object, after: str = "") -> list[Any] | None:
        """Call a command that writes nothing; None in an empty place.

        With ``after``, a cursor, raises `HistoryLost` where this is not in the log.
        """
        answer = self._call(_READ, command, arguments, writes=False)
        word = answer[0]
        if after and word in _LOST:
            raise HistoryLost(f"{after}: {_LOST[word]}")
        self._check(answer)
        return None if word == b"empty" else answer

    def _check(self, answer: list[Any]) -> None:
        if answer[0] == b"foreign":
            raise BrokerUnavailable(self._foreign(answer[1].decode("utf-8", "replace")))
        if answer[0] == b"damaged":
            raise BrokerUnavailable(
                f"a part of the log {self.keys[0]!r} is missing from Redis, as after an eviction;"
                " the next event that is published starts a new one"
            )

    def _foreign(self, key: str) -> str:
        kind = "stream" if key == self.keys[0] else "key"
        return f"redis {kind} {key!r} was not created by ssekit; choose another name with ?stream="

    def _call(
        self, parts: tuple[str, ...], command: str, arguments: tuple[object, ...], *, writes: bool
    ) -> list[Any]:
        known, text = self._prepare(parts)
        settings, given = (
            (self._settings, "" if self._settled else self._given) if writes else ("", "")
        )
        rest = (RUN, settings, given, command, *arguments)
        answer = self._connections.ask((known, *rest), (text, *rest), writes=writes)
        return answer.split() if isinstance(answer, bytes) else answer  # as "stored ID TIME"

    def _prepare(self, parts: tuple[str, ...]) -> tuple[Prepared, Prepared]:
        """Return how a script is called, by its name and with its text."""
        bounds = _bounds()
        found = self._prepared.get((parts, bounds))
        if found is None:
            script = _Script(parts, bounds)
            found = self._prepared[parts, bounds] = (
                Prepared("EVALSHA", script.sha, len(self.keys), *self.keys),
                Prepared("EVAL", script.source, len(self.keys), *self.keys),
            )
        return found
