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

commit = publish = ""
counted: list[int] = []


@position.app.post("/place")
def begin() -> dict[str, int]:
    """Begin again with another place; returns the votes until now."""
    global commit, publish
    commit = publish = ""
    votes = position.read()
    commit, _, publish = request.args["place"].rpartition(", then ")
    counted.clear()
    return votes


def at(now: str) -> None:
    """Vote, or the half of it that is to happen now."""
    if now == (commit or publish) and not counted:
        counted.append(position.count("tea"))
    if now == publish and len(counted) == 1:
        counted.append(0)
        position.hub.publish("votes", {"drink": "tea", "votes": counted[0]})


def around(function: Callable[..., Any], before: str, after: str) -> Callable[..., Any]:
    def called(*arguments: Any) -> Any:
        at(before)
        result = function(*arguments)
        at(after)
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
