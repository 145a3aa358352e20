"""Measures with ssekit's probe, if the server has one (`ssekit.probe`).

The probe says when each event left the server and whether a stream is still open there, and it can
resume.  So what is measured here is the path in between.  Nothing in its answers is trusted.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from secrets import token_hex
from typing import NamedTuple

from ssekit.cli.doctor.budget import Budget
from ssekit.cli.doctor.exchange import Exchange
from ssekit.cli.doctor.http import Manner, ask
from ssekit.cli.doctor.seen import Measured

EVENTS = 10
INTERVAL = 0.1
HEARTBEAT = 1.0
"""Seconds between heartbeats of the probe: a hop may need two to notice that we disconnected."""
LATEST = 2 * HEARTBEAT + 1.5
"""Seconds within which the server's stream has to be closed after we disconnected."""


class _State(NamedTuple):
    took: float
    ahead: float  # of the server's clock before ours, in seconds
    said: dict[str, object]


def measure(
    url: str, budget: Budget, manner: Manner, progress: Callable[[str], None]
) -> Measured | None:
    """Return what the probe at ``url`` showed, or None if there is none, or no time for it."""
    probe = _Probe(url.partition("?")[0].partition("#")[0], budget, manner)
    first = probe.state("none")
    if first is None or not budget.allows(EVENTS * INTERVAL + budget.quick):
        return None
    progress(f"measuring with {probe.url}")
    states = [first, *(probe.state("none") for _ in range(2))]
    best = min((state for state in states if state is not None), key=lambda state: state.took)
    name = token_hex(8)
    stream = probe.stream(name)
    left = time.monotonic()
    measured = Measured(probe.url, best.took, _delays(stream, best.ahead), HEARTBEAT)
    if stream.events:
        process = str(_object(stream.events[0][1].data).get("process"))
        measured = probe.watch_closing(measured, name, process, left)
    return probe.resume(measured)


@dataclass(frozen=True)
class _Probe:
    """The probe at an address, asked as long as there is time."""

    url: str
    budget: Budget
    manner: Manner

    def state(self, name: str) -> _State | None:
        if not self.budget.allows(self.budget.quick):
            return None
        answer = ask(f"{self.url}?state={name}", self.budget.quick, self.manner, enough=_no_json)
        said = _object(answer.body) if answer.status == 200 else {}
        now = _number(said.get("time"))
        if said.get("probe") != 1 or now is None or answer.head_at is None:
            return None
        return _State(answer.head_at, now - (answer.sent + answer.head_at / 2), said)

    def stream(self, name: str) -> Exchange:
        query = f"name={name}&count={EVENTS}&interval={INTERVAL}&heartbeat={HEARTBEAT}&stay=1"
        return ask(
            f"{self.url}?{query}",
            EVENTS * INTERVAL + self.budget.quick,
            self.manner,
            enough=lambda answer: len(answer.events) >= EVENTS,
        )

    def watch_closing(self, measured: Measured, name: str, process: str, left: float) -> Measured:
        """Find out when the server ends the stream after we disconnected.

        If the server has several processes, any of them may answer; only the stream's own counts.
        """
        while self.budget.allows(self.budget.quick):
            asked = time.monotonic() - left
            state = self.state(name)
            if state is not None and state.said.get("process") == process:
                still = state.said.get("open") is True
                measured = replace(measured, closed_after=asked, still_open=still)
                if not still:
                    return measured
            if asked >= LATEST:
                return measured
            self.manner.beat()
            time.sleep(0.05)
        # It was still open when the time was up, which proves nothing.
        return replace(measured, closed_after=None, still_open=False)

    def resume(self, measured: Measured) -> Measured:
        if not self.budget.allows(self.budget.quick):
            return measured
        after = EVENTS // 2
        resumed = ask(
            f"{self.url}?count={EVENTS}&interval={INTERVAL}",
            self.budget.quick,
            self.manner,
            headers=[("Last-Event-ID", str(after))],
            enough=lambda answer: bool(answer.events),
        )
        first = resumed.ids[0] if resumed.ids else None
        return replace(measured, resumed_at=first, resumed_right=str(after + 1))


def _delays(stream: Exchange, ahead: float) -> tuple[float, ...]:
    if not stream.is_stream and stream.answered:
        return ()
    delays = []
    for at, event in stream.events[:EVENTS]:
        sent = _number(_object(event.data).get("sent"))
        if sent is not None:
            delays.append(max(stream.sent + at + ahead - sent, 0.0))
    if not stream.over and not stream.failure:
        # What has not arrived was sent too, and is at least this late.
        missing = range(len(stream.events), EVENTS)
        delays += [max(stream.left_at - number * INTERVAL, 0.0) for number in missing]
    return tuple(delays)


def _no_json(answer: Exchange) -> bool:
    return answer.media_type != "application/json"


def _number(value: object) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if known and abs(value) < 1e12 and math.isfinite(value) else None  # type: ignore[arg-type]


def _object(data: object) -> dict[str, object]:
    """Return the JSON object in ``data``, or an empty one."""
    try:
        value = json.loads(data) if isinstance(data, str | bytes) else None
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
