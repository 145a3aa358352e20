"""The examination: which requests are made, in which order, within a bounded time.

It returns a `Seen` and judges nothing.  There is never more than one request at a time: a server
that handles only one would let the others hang, and the doctor would find the wrong cause.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import groupby
from urllib.parse import urljoin, urlsplit

from ssekit.cli.doctor.budget import Budget
from ssekit.cli.doctor.exchange import Exchange
from ssekit.cli.doctor.http import Manner, ask, offers_http2
from ssekit.cli.doctor.measuring import measure
from ssekit.cli.doctor.reaching import check_url
from ssekit.cli.doctor.seen import UNKNOWN_ORIGIN, Measured, Seen

MAX_REDIRECTS = 5
PLAIN = ("Accept-Encoding", "identity")

Pairs = list[tuple[str, str]]
Enough = Callable[[Exchange], bool]


@dataclass(frozen=True)
class Plan:
    """What to examine.

    ``seconds`` is the limit for the whole examination, and ``heartbeat`` how long a stream may be
    silent.  ``origin`` is the origin of a page that reads the stream.  ``upstream`` is the same
    stream without the proxy.  ``probe`` is the address of ssekit's probe, by default "probe" beside
    the stream.  ``post`` allows a POST.
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

    ``progress`` is called with each step.  Raises `BadURL` for a URL that cannot be requested.
    """
    return _Examination(plan, manner, progress).run()


class _Examination:
    def __init__(self, plan: Plan, manner: Manner, progress: Callable[[str], None]) -> None:
        for url in filter(None, [plan.url, plan.upstream, plan.probe]):
            check_url(url)
        self._plan = plan
        self._manner = manner
        self._progress = progress
        self._budget = Budget(plan.seconds)
        self._headers: Pairs = [("Origin", plan.origin)] if plan.origin else []

    def run(self) -> Seen:
        plan = self._plan
        self._progress(f"connecting to {plan.url}")
        seen = self._follow()
        if plan.upstream:
            # Before the slow requests: if nothing arrives, this comparison tells most.
            self._progress(f"asking {plan.upstream} directly")
            seen = replace(seen, upstream=self._upstream(plan.upstream))
        if seen.look.failure or (seen.look.answered and not seen.look.is_stream):
            return seen
        seen = self._uncompressed(seen)
        seen = self._other_requests(seen)
        seen = self._resume(seen)
        seen = replace(seen, probe=self._measure(plan.probe or urljoin(seen.url, "probe")))
        if seen.probe is not None and seen.upstream is not None and seen.upstream.look.is_stream:
            beside = urljoin(seen.upstream.url, urlsplit(seen.probe.url).path)
            seen = replace(seen, upstream=replace(seen.upstream, probe=self._measure(beside)))
        return self._listen(seen)

    def _look(self, url: str, *headers: tuple[str, str], enough: Enough) -> Exchange | None:
        """Look at a stream for a while; None if there is no time for it."""
        if not self._budget.allows(self._budget.look):
            return None
        return ask(
            url, self._budget.look, self._manner, headers=[*headers, *self._headers], enough=enough
        )

    def _quick(self, url: str, method: str, headers: Pairs) -> Exchange | None:
        """Make a request of which the head is enough; None if there is no time for it."""
        if not self._budget.allows(self._budget.quick):
            return None
        seconds = self._budget.quick
        return ask(url, seconds, self._manner, method=method, headers=headers, enough=_answered)

    def _measure(self, url: str) -> Measured | None:
        return measure(url, self._budget, self._manner, self._progress)

    def _follow(self) -> Seen:
        plan, url = self._plan, self._plan.url
        redirects: list[Exchange] = []
        while True:
            seconds = min(self._budget.look, self._budget.rest)
            look = ask(url, seconds, self._manner, headers=self._headers, enough=_three)
            seen = Seen(url, look, plan.heartbeat, plan.origin, tuple(redirects))
            if look.status not in (301, 302, 303, 307, 308) or not look.get("Location"):
                return seen
            redirects.append(look)
            target = _target(url, look.get("Location"))
            if len(redirects) > MAX_REDIRECTS or not target:
                return replace(seen, redirects=tuple(redirects))
            if urlsplit(target).netloc != urlsplit(url).netloc:
                # Headers meant for one host are not sent to another.
                self._manner = replace(self._manner, headers=())
            url = target

    def _uncompressed(self, seen: Seen) -> Seen:
        if seen.look.events and not seen.look.get("Content-Encoding"):
            return seen
        self._progress("asking for it without compression")
        plain = self._look(seen.url, PLAIN, enough=_three)
        if plain is not None and not plain.answered:
            plain = self._look(seen.url, PLAIN, enough=_three) or plain
        if plain is not None and plain.events and not seen.look.answered:
            # The first request may have been slow, not the compressed one.
            again = self._look(seen.url, enough=_three)
            seen = replace(seen, look=again or seen.look)
        return replace(seen, plain=plain)

    def _other_requests(self, seen: Seen) -> Seen:
        self._progress("trying HEAD, other origins and HTTP/2")
        url, quick = seen.url, self._quick
        if self._budget.allows(self._budget.quick):
            seen = replace(seen, http2=offers_http2(url, self._budget.quick, self._manner))
        head = quick(url, "HEAD", [])
        if head is not None and not head.answered:
            head = quick(url, "HEAD", []) or head  # the server may only have been busy
        seen = replace(seen, head=head)
        if self._plan.post:
            seen = replace(seen, post=quick(url, "POST", []))
        if self._plan.origin:
            wanted = [("Access-Control-Request-Method", "GET"), *self._headers]
            wanted += [("Access-Control-Request-Headers", "last-event-id")]
            seen = replace(
                seen,
                preflight=quick(url, "OPTIONS", wanted),
                stranger=quick(url, "GET", [("Origin", UNKNOWN_ORIGIN)]),
            )
        if not any(exchange.answered for exchange in seen.exchanges):
            # Most servers answer it themselves, and so reveal their name.
            seen = replace(seen, trace=quick(url, "TRACE", []))
        return seen

    def _resume(self, seen: Seen) -> Seen:
        ids = [key for key, _ in groupby(seen.telling.ids)]
        if len(ids) < 2 or not ids[0]:
            return seen
        self._progress("reconnecting with Last-Event-ID")
        after, expected = ids[0], tuple(ids[1:])
        resumed = self._look(
            seen.url,
            PLAIN,
            ("Last-Event-ID", after),
            enough=lambda answer: len(answer.events) >= len(expected),
        )
        return replace(seen, resumed=resumed, resumed_after=after, expected=expected)

    def _upstream(self, url: str) -> Seen | None:
        look = self._look(url, enough=_three)
        if look is None:
            return None
        seen = Seen(url, look, self._plan.heartbeat, self._plan.origin)
        if not look.is_stream:
            return seen
        return replace(self._uncompressed(seen), head=self._quick(url, "HEAD", []))

    def _listen(self, seen: Seen) -> Seen:
        seconds = self._budget.rest
        self._progress(f"listening for {seconds:.0f} s")
        headers = list(self._headers)
        if seen.plain is not None and len(seen.plain.events) > len(seen.look.events):
            headers.append(PLAIN)
        return replace(seen, long=ask(seen.url, seconds, self._manner, headers=headers))


def _three(answer: Exchange) -> bool:
    return len(answer.events) >= 3 or (answer.answered and not answer.is_stream)


def _answered(answer: Exchange) -> bool:
    return answer.answered


def _target(url: str, location: str) -> str:
    """Where a redirect leads; "" if that cannot be requested."""
    try:
        target = urljoin(url, location)
        check_url(target)
    except ValueError:
        return ""
    return target
