"""The examination: which requests are made, in which order, within one bound of time.

It makes a `Seen` and judges nothing.  Requests follow each other, never side by side: a server that
serves one request at a time would hang the others, and the wrong thing would be found.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import groupby
from secrets import token_hex
from urllib.parse import urljoin, urlsplit

from ssekit.doctor.exchange import Exchange
from ssekit.doctor.http import Manner, ask, check_url, offers_http2
from ssekit.doctor.seen import STRANGER, Measured, Seen

MOST_REDIRECTS = 5
PLAIN = ("Accept-Encoding", "identity")
PROBE_EVENTS = 10
PROBE_INTERVAL = 0.1
PROBE_HEARTBEAT = 1.0


@dataclass(frozen=True)
class Plan:
    """What to examine.

    ``seconds`` bound the whole; ``heartbeat`` is how long a stream may be silent; ``origin`` is a
    page's that will read the stream; ``upstream`` is the same stream behind the proxy; ``probe``
    is where ssekit's probe is, by default "probe" beside the stream.  ``post`` allows a POST.
    """

    url: str
    seconds: float = 40.0
    heartbeat: float = 30.0
    origin: str = ""
    upstream: str = ""
    probe: str = ""
    post: bool = True


def examine(plan: Plan, manner: Manner, progress: Callable[[str], None]) -> Seen:
    """Make the requests and return what was seen.

    ``progress`` is told what is being done.  Raises `BadURL` for a URL that cannot be asked.
    """
    return _Examination(plan, manner, progress).run()


class _Examination:
    def __init__(self, plan: Plan, manner: Manner, progress: Callable[[str], None]) -> None:
        for url in filter(None, [plan.url, plan.upstream, plan.probe]):
            check_url(url)
        self._plan = plan
        self._manner = manner
        self._progress = progress
        self._deadline = time.monotonic() + plan.seconds
        # Parts of the whole, so that whatever hangs, some of the time is left to listen.
        self._look = min(plan.seconds / 8, 4.0)
        self._quick = min(plan.seconds / 12, 3.0)

    def run(self) -> Seen:
        plan = self._plan
        headers = [("Origin", plan.origin)] if plan.origin else []
        self._progress(f"connecting to {plan.url}")
        url, redirects, look = self._follow(plan.url, headers)
        seen = Seen(url, look, plan.heartbeat, plan.origin, redirects)
        if look.failure or (look.answered and not look.is_stream):
            return seen
        seen = self._uncompressed(seen, headers)
        seen = self._other_methods(seen, headers)
        if not any(exchange.answered for exchange in seen.exchanges):
            # Most servers answer this one themselves, and so show their name.
            trace = ask(seen.url, self._left(self._quick), self._manner, method="TRACE")
            seen = replace(seen, trace=trace)
        seen = self._resume(seen, headers)
        seen = replace(seen, probe=self._probe(plan.probe or urljoin(url, "probe")))
        if plan.upstream:
            self._progress(f"asking {plan.upstream} directly")
            seen = replace(seen, upstream=self._upstream(plan.upstream, headers, seen.probe))
        return self._listen(seen, headers)

    def _left(self, most: float) -> float:
        return max(min(most, self._deadline - time.monotonic()), 0.05)

    def _follow(
        self, url: str, headers: list[tuple[str, str]]
    ) -> tuple[str, tuple[Exchange, ...], Exchange]:
        redirects: list[Exchange] = []
        manner = self._manner
        while True:
            look = ask(url, self._left(self._look), manner, headers=headers, enough=_three)
            if look.status not in (301, 302, 303, 307, 308) or not look.get("Location"):
                return url, tuple(redirects), look
            redirects.append(look)
            target = _target(url, look.get("Location"))
            if len(redirects) > MOST_REDIRECTS or not target:
                return url, tuple(redirects), look
            if urlsplit(target).netloc != urlsplit(url).netloc:
                # What was meant for one host is not told to another.
                self._manner = manner = replace(manner, headers=())
            url = target

    def _uncompressed(self, seen: Seen, headers: list[tuple[str, str]]) -> Seen:
        if seen.look.events and not seen.look.get("Content-Encoding"):
            return seen
        self._progress("asking for it without compression")
        plain = ask(
            seen.url,
            self._left(self._look),
            self._manner,
            headers=[PLAIN, *headers],
            enough=_three,
        )
        if plain.events and not seen.look.answered:
            # It may have been the first that was slow, and not the compressed one.
            again = ask(
                seen.url, self._left(self._look), self._manner, headers=headers, enough=_three
            )
            seen = replace(seen, look=again)
        return replace(seen, plain=plain)

    def _other_methods(self, seen: Seen, headers: list[tuple[str, str]]) -> Seen:
        self._progress("trying HEAD, other origins and HTTP/2")
        url, manner = seen.url, self._manner
        seen = replace(
            seen,
            http2=offers_http2(url, self._left(self._quick), manner),
            head=ask(url, self._left(self._quick), manner, method="HEAD"),
        )
        if self._plan.post:
            post = ask(url, self._left(self._quick), manner, method="POST", enough=_head)
            seen = replace(seen, post=post)
        if self._plan.origin:
            wanted = [("Access-Control-Request-Method", "GET")]
            wanted += [("Access-Control-Request-Headers", "last-event-id"), *headers]
            stranger = [("Origin", STRANGER)]
            seen = replace(
                seen,
                preflight=ask(
                    url, self._left(self._quick), manner, method="OPTIONS", headers=wanted
                ),
                stranger=ask(url, self._left(self._quick), manner, headers=stranger, enough=_head),
            )
        return seen

    def _resume(self, seen: Seen, headers: list[tuple[str, str]]) -> Seen:
        ids = [key for key, _ in groupby(seen.telling.ids)]
        if len(ids) < 2 or not ids[0]:
            return seen
        self._progress("coming back with Last-Event-ID")
        after, expected = ids[0], tuple(ids[1:])
        resumed = ask(
            seen.url,
            self._left(self._look),
            self._manner,
            headers=[PLAIN, ("Last-Event-ID", after), *headers],
            enough=lambda answer: len(answer.events) >= len(expected),
        )
        return replace(seen, resumed=resumed, resumed_after=after, expected=expected)

    def _upstream(self, url: str, headers: list[tuple[str, str]], front: Measured | None) -> Seen:
        look = ask(url, self._left(self._look * 2), self._manner, headers=headers)
        seen = Seen(url, look, self._plan.heartbeat, self._plan.origin)
        if not look.is_stream:
            return seen
        seen = self._uncompressed(seen, headers)
        seen = replace(seen, head=ask(url, self._left(self._quick), self._manner, method="HEAD"))
        if front is not None:
            path = urlsplit(front.url).path
            seen = replace(seen, probe=self._probe(urljoin(url, path)))
        return seen

    def _listen(self, seen: Seen, headers: list[tuple[str, str]]) -> Seen:
        seconds = self._deadline - time.monotonic()
        self._progress(f"listening for {seconds:.0f} s")
        if seen.plain is not None and len(seen.plain.events) > len(seen.look.events):
            headers = [PLAIN, *headers]
        return replace(seen, long=ask(seen.url, self._left(seconds), self._manner, headers=headers))

    def _probe(self, url: str) -> Measured | None:
        url = url.partition("?")[0].partition("#")[0]
        states = [state for _ in range(3) if (state := self._state(url, "none"))]
        if not states:
            return None
        self._progress(f"measuring with {url}")
        trip, offset, _ = min(states, key=lambda state: state[0])
        name = token_hex(8)
        query = f"?name={name}&count={PROBE_EVENTS}&interval={PROBE_INTERVAL}"
        stream = ask(
            f"{url}{query}&heartbeat={PROBE_HEARTBEAT}&stay=1",
            self._left(self._quick + PROBE_EVENTS * PROBE_INTERVAL),
            self._manner,
            enough=lambda answer: len(answer.events) >= PROBE_EVENTS,
        )
        left = time.monotonic()
        delays, process = [], ""
        for at, event in stream.events:
            said = _object(event.data)
            sent, process = said.get("sent"), str(said.get("process"))
            if isinstance(sent, int | float):
                delays.append(stream.sent + at + offset - sent)
        for number in range(len(delays), PROBE_EVENTS):
            # It has left, and not arrived: it is at least so late.
            delays.append(max(stream.left_at - number * PROBE_INTERVAL, 0))
        measured = Measured(url, trip, tuple(delays), PROBE_HEARTBEAT)
        if process:
            measured = self._watch_closing(measured, name, process, left)
        return self._probe_resuming(measured)

    def _state(self, url: str, name: str) -> tuple[float, float, dict[str, object]] | None:
        """Return how long an answer took, the server's clock less ours, and what it said."""
        answer = ask(f"{url}?state={name}", self._left(self._quick), self._manner)
        state = _object(answer.body) if answer.status == 200 else {}
        now = state.get("time")
        if state.get("probe") != 1 or not isinstance(now, int | float) or answer.head_at is None:
            return None
        return answer.head_at, now - (answer.sent + answer.head_at / 2), state

    def _watch_closing(self, measured: Measured, name: str, process: str, left: float) -> Measured:
        """See when the server ends the stream that we have left.

        A server of several processes answers from any of them: only the stream's own counts.
        """
        until = min(left + 2 * PROBE_HEARTBEAT + 1.5, self._deadline)
        while True:
            asked = time.monotonic()
            state = self._state(measured.url, name)
            if state is not None and state[2].get("process") == process:
                still = state[2].get("open") is True
                measured = replace(measured, closed_after=asked - left, still_open=still)
                if not still:
                    break
            if time.monotonic() >= until:
                break
            self._manner.beat()
            time.sleep(0.05)
        return measured

    def _probe_resuming(self, measured: Measured) -> Measured:
        after = PROBE_EVENTS // 2
        resumed = ask(
            f"{measured.url}?count={PROBE_EVENTS}&interval={PROBE_INTERVAL}",
            self._left(self._quick),
            self._manner,
            headers=[("Last-Event-ID", str(after))],
            enough=lambda answer: bool(answer.events),
        )
        first = resumed.ids[0] if resumed.ids else None
        return replace(measured, resumed_at=first, resumed_right=str(after + 1))


def _three(answer: Exchange) -> bool:
    return len(answer.events) >= 3 or (answer.answered and not answer.is_stream)


def _head(answer: Exchange) -> bool:
    return answer.answered


def _target(url: str, location: str) -> str:
    """Where a redirect leads; "" if nowhere that can be asked."""
    try:
        target = urljoin(url, location)
        check_url(target)
    except ValueError:
        return ""
    return target


def _object(data: object) -> dict[str, object]:
    """What the other end calls JSON, if it is an object."""
    try:
        value = json.loads(data) if isinstance(data, str | bytes) else None
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
