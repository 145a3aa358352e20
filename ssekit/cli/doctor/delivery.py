"""Checks of when the bytes arrive: each event at once, or held back."""

from __future__ import annotations

from collections.abc import Iterable

from ssekit.cli.doctor.exchange import FULL, Exchange
from ssekit.cli.doctor.finding import Finding
from ssekit.cli.doctor.hops import blaming, line, suspect
from ssekit.cli.doctor.seen import Seen

TOGETHER = 0.02
"""Events within this many seconds of each other arrived together."""
LATE = 0.5
"""Seconds that bytes may be held back before it counts as buffering."""
SLOW = 0.08
"""The median delay in seconds, by the server's clock, above which it is a finding."""


def compressed(seen: Seen) -> Finding | None:
    """The answer arrives in time only without compression."""
    look, plain = seen.look, seen.plain
    if plain is None or not plain.events or _held(plain):
        return None
    coding = look.get("Content-Encoding")
    if not (_held(look) or _brings_nothing(look, plain)) or (look.answered and not coding):
        return None
    shown = f"with Content-Encoding: {coding[:40]}" if coding else "not even its headers"
    return blaming(
        "compressed",
        92,
        f"compressed, no event arrived in {look.left_at:.1f} s ({shown}); without compression the "
        f"first arrived after {plain.events[0][0]:.1f} s",
        "a compressor collects what it compresses, and holds events back until it has enough",
        seen,
    )


def buffered(seen: Seen) -> Finding | None:
    """A hop, or the application, collects the answer and sends it in batches or at its end."""
    measured = seen.probe
    if measured is not None and measured.delay > LATE:
        what = (
            f"by the server's own clock its events arrived {measured.delay:.2f} s late or more "
            f"(median of {len(measured.delays)})"
        )
    elif compressed(seen) is not None or (measured is not None and measured.delays):
        return None
    else:
        what = _collected(seen)
    if what:
        return _buffered(90, what, seen)
    batches = [batch for batch in _together(at for at, _ in seen.watched.events) if batch[0] > LATE]
    if len(batches) >= 2 and min(map(len, batches)) >= 3 and seen.watched.left != FULL:
        what = (
            f"events arrived in {len(batches)} batches of about {len(batches[0])} with silence "
            "between them, as from a buffer that fills up"
        )
        return _buffered(64, what + _asked_directly(seen), seen)
    return None


def _buffered(harm: int, what: str, seen: Seen) -> Finding:
    why = "the page shows nothing while events are held back"
    return blaming("buffered", harm, what, why, seen)


def _collected(seen: Seen) -> str:
    """What shows that the answer was collected before it was passed on, or ""."""
    watched = seen.watched
    direct = seen.upstream.look if seen.upstream is not None else None
    if not watched.answered and not watched.failure:
        what = f"no byte arrived in {watched.left_at:.1f} s, not even headers"
    elif _held(watched):
        count, at = len(watched.events), watched.events[-1][0]
        what = f"all {count} events arrived together, at the end, after {at:.1f} s"
    elif direct is not None and direct.events and _brings_nothing(watched, direct):
        what = f"no event arrived in {watched.left_at:.1f} s"
    else:
        return ""
    return what + _asked_directly(seen)


def _asked_directly(seen: Seen) -> str:
    direct = seen.upstream.look if seen.upstream is not None else None
    if direct is None or direct.head_at is None:
        return ""
    first = f", the first event after {direct.events[0][0]:.2f} s" if direct.events else ""
    return f"; asked directly, the headers arrived after {direct.head_at:.2f} s{first}"


def _held(answer: Exchange) -> bool:
    """Whether several events arrived together at the end of a long answer."""
    events = answer.events
    return (
        answer.over
        and len(events) >= 2
        and events[0][0] > LATE
        and events[-1][0] - events[0][0] < TOGETHER
        and answer.left_at - events[-1][0] < LATE
    )


def _brings_nothing(answer: Exchange, other: Exchange) -> bool:
    """Whether this answer brought next to nothing, while the other brought bytes.

    Both are answers of the same stream.  Bytes are compared, not events, because they can be
    counted in an unknown compression too.  Only what cannot be chance counts: a stream may have
    nothing to send at the moment.
    """
    if answer.events or answer.left_at < 0.9 * other.left_at:
        return False
    here = _together(arrival.at for arrival in answer.arrivals)
    there = _together(arrival.at for arrival in other.arrivals)
    if not there or answer.head_at is None or other.head_at is None:
        return bool(there)
    waited, opening = answer.left_at - answer.head_at, there[0][0] - other.head_at
    at_once = opening < min(LATE, waited / 2 - TOGETHER)
    return len(there) >= 3 * max(len(here), 1) or (at_once and not here)


def _together(times: Iterable[float]) -> list[list[float]]:
    """Group the times: those that are close together are in one list."""
    groups: list[list[float]] = []
    for at in times:
        if groups and at - groups[-1][-1] < TOGETHER:
            groups[-1].append(at)
        else:
            groups.append([at])
    return groups


def delayed(seen: Seen) -> Finding | None:
    measured = seen.probe
    if measured is None or not SLOW < measured.delay <= LATE:
        return None
    return blaming(
        "delayed",
        66,
        f"by the server's own clock its events arrived {measured.delay * 1000:.0f} ms late or "
        f"more (median of {len(measured.delays)})",
        "a hop keeps small packets for a moment in case more data follows, at every event",
        seen,
    )


def headers_late(seen: Seen) -> Finding | None:
    """Headers that are late every time, and later than those of a HEAD.

    A busy server is slow with everything.
    """
    answers = [one for one in (seen.look, seen.plain, seen.long) if one and one.answered]
    usual = (seen.head.head_at if seen.head is not None else None) or 0.0
    if not answers or not all(_comes_with_its_headers(answer, usual) for answer in answers):
        return None
    return Finding(
        "headers-late",
        56,
        f"the headers arrived after {answers[-1].head_at:.1f} s, together with the first bytes",
        "until the headers arrive, a browser is still connecting: there is no open event, and "
        "proxies give up after their own timeout",
        line("headers-late", seen, suspect(seen)),
    )


def _comes_with_its_headers(answer: Exchange, usual: float) -> bool:
    """Whether the headers waited for the first bytes of the body."""
    head_at = answer.head_at or 0.0
    late = head_at - usual >= LATE and bool(answer.arrivals)
    return late and answer.arrivals[0].at - head_at < TOGETHER and not _held(answer)
