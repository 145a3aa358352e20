"""The leases of a ``memory:`` log: who has one, and what each holds."""

from __future__ import annotations

from ssekit.brokers.contract import Held, LeaseEnded

_ENDED = -1


class Leases:
    def __init__(self) -> None:
        self._beats: dict[str, int] = {}
        self._held: dict[str, dict[Held, None]] = {}  # by holder
        self._holders: dict[Held, set[str]] = {}

    def beat(self, holder: str, first: bool) -> bool:
        beats = self._beats.get(holder, 0 if first else _ENDED)
        if beats == _ENDED:
            return False
        self._beats[holder] = beats + 1
        return True

    def all(self) -> dict[str, int]:
        return dict(self._beats)

    def end(self, holder: str, beats: int) -> bool:
        if self._beats.get(holder, _ENDED) not in (beats, _ENDED):
            return False
        self._beats[holder] = _ENDED
        self._forget(holder)
        return True

    def held(self, holder: str) -> list[Held]:
        return list(self._held.get(holder, ()))

    def check(self, holder: str) -> None:
        if self._beats.get(holder, _ENDED) == _ENDED:
            raise LeaseEnded(f"the lease {holder} was ended")

    def hold(self, holder: str, what: Held) -> None:
        self._held.setdefault(holder, {})[what] = None
        self._holders.setdefault(what, set()).add(holder)

    def has(self, holder: str, what: Held) -> bool:
        return what in self._held.get(holder, ())

    def is_held(self, what: Held) -> bool:
        return what in self._holders

    def release(self, what: Held, holder: str) -> None:
        holders = self._holders.get(what, set())
        if holder in holders:
            holders.remove(holder)
            if not holders:
                del self._holders[what]
            del self._held[holder][what]
            self._forget(holder)

    def _forget(self, holder: str) -> None:
        """Forget a lease that holds nothing; all of it, if it was ended."""
        if not self._held.get(holder):
            self._held.pop(holder, None)
            if self._beats.get(holder) == _ENDED:
                del self._beats[holder]
