"""examples/position.py, with a vote at one place in time, which `POST /place` names.

"..., then ..." commits the vote at the first place and publishes it at the second.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from flask import request

from tests.servers import ROOT

sys.path.insert(0, str(ROOT / "examples"))
import position


class Vote:
    """A vote whose halves come at one place each: when it is committed, and when published."""

    def __init__(self, place: str = "") -> None:
        self._commit, _, self._publish = place.rpartition(", then ")
        self._votes = 0
        self._published = False

    def at(self, now: str) -> None:
        """Vote, or the half of it that is to happen now."""
        if now == (self._commit or self._publish) and not self._votes:
            self._votes = position.count("tea")
        if now == self._publish and self._votes and not self._published:
            self._published = True
            position.hub.publish("votes", {"drink": "tea", "votes": self._votes})


votes = [Vote()]
"""The one that is to come."""


@position.app.post("/place")
def begin() -> dict[str, int]:
    """Have the next vote come at another place; returns the votes until now."""
    votes[:] = [Vote()]
    until_now = position.read()
    votes[:] = [Vote(request.args["place"])]
    return until_now


def around(function: Callable[..., Any], before: str, after: str) -> Callable[..., Any]:
    def called(*arguments: Any) -> Any:
        votes[0].at(before)
        result = function(*arguments)
        votes[0].at(after)
        return result

    return called


position.hub.position = around(  # type: ignore[method-assign]
    position.hub.position, "before the position", "after the position"
)
position.read = around(position.read, "before the state", "after the state")
views = position.app.view_functions
views["page"] = around(views["page"], "before the page", "after the page")
views["events"] = around(views["events"], "before the stream", "after the stream")
app = position.app
