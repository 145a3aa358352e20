"""Checks of how the bytes come: in time, in one piece, for as long as they should."""

from __future__ import annotations

from itertools import pairwise

from ssekit.doctor import hops
from ssekit.doctor.exchange import CUT, FULL, Exchange
from ssekit.doctor.finding import Finding
from ssekit.doctor.seen import Seen

TOGETHER = 0.02
"""Events that come within this many seconds came together."""
LATE = 0.5
"""Seconds that bytes may be held back before anybody calls it buffering."""
SLOW = 0.08
"""The median delay, measured against the server's clock, from which on it is a finding."""
SHORT = 20.0
"""Seconds under which a stream that ends by itself is a short one."""

_IDLE_CUTS = {
    30: "many load balancers and gunicorn's sync worker",
    55: "Heroku's router",
    60: "nginx's proxy_read_timeout, Apache's Timeout and AWS load balancers",
    100: "Cloudflare",
}


def compressed(seen: Seen) -> Finding | None:
    """The answer comes in time only without compression."""
    look, plain = seen.look, seen.plain
    if plain is None or not plain.events or (look.events and not _held(look)):
        return None
    if _held(plain):
        return None
    coding = look.get("Content-Encoding")
    first = plain.events[0][0]
    if look.opaque or (look.answered and not coding):
        return None
    shown = f"with Content-Encoding: {coding}" if coding else "not even its headers"
    return Finding(
        "compressed",
        92,
        f"compressed, no event came in {look.left_at:.1f} s ({shown}); without compression the "
        f"first came after {first:.1f} s",
        "a compressor collects what it compresses, and holds events back until it has enough",
        hops.line("compressed", seen, hops.suspect(seen)),
        _name(seen),
    )


def buffered(seen: Seen) -> Finding | None:
    """A hop, or the application, collects the answer and sends it in lumps or at its end."""
    measured = seen.probe
    if measured is not None and measured.delay > LATE:
        return _buffered(
            seen,
            90,
            f"by the server's own clock its events arrived {measured.delay:.2f} s late or more "
            f"(median of {len(measured.delays)})",
        )
    if compressed(seen) is not None or (measured is not None and measured.delays):
        return None
    watched = seen.watched
    upstream = seen.upstream.look if seen.upstream is not None else None
    direct = ""
    if upstream is not None and upstream.answered:
        direct = f"; asked directly, the headers came after {upstream.head_at or 0:.2f} s"
    if not watched.answered and not watched.failure:
        return _buffered(
            seen, 90, f"not one byte came in {watched.left_at:.1f} s, not even headers{direct}"
        )
    if _held(watched):
        count, at = len(watched.events), watched.events[-1][0]
        return _buffered(
            seen,
            90,
            f"all {count} events came together, with the end, after {at:.1f} s{direct}",
        )
    lumps = _lumps(watched)
    if len(lumps) >= 2 and min(len(lump) for lump in lumps) >= 3:
        return _buffered(
            seen,
            64,
            f"events came in {len(lumps)} lumps of about {len(lumps[0])} with silence between, "
            f"as from a buffer that fills up{direct}",
        )
    return None


def _buffered(seen: Seen, harm: int, what: str) -> Finding:
    return Finding(
        "buffered",
        harm,
        what,
        "events are only worth something when they come; whoever looks at the page sees nothing",
        hops.line("buffered", seen, hops.suspect(seen)),
        _name(seen),
    )


def _name(seen: Seen) -> str:
    hop = hops.suspect(seen)
    return hop.name if hop is not None else ""


def _held(answer: Exchange) -> bool:
    """Whether several events came together at the end of an answer that took its time."""
    events = answer.events
    return (
        answer.over
        and len(events) >= 2
        and events[0][0] > LATE
        and events[-1][0] - events[0][0] < TOGETHER
        and answer.left_at - events[-1][0] < LATE
    )


def _lumps(answer: Exchange) -> list[list[float]]:
    """The times of events, those that came together in one list; without the first, a history."""
    lumps: list[list[float]] = []
    for at, _ in answer.events:
        if lumps and at - lumps[-1][-1] < TOGETHER:
            lumps[-1].append(at)
        else:
            lumps.append([at])
    return [lump for lump in lumps if lump[0] > LATE]


def delayed(seen: Seen) -> Finding | None:
    measured = seen.probe
    if measured is None or not SLOW < measured.delay <= LATE:
        return None
    return Finding(
        "delayed",
        66,
        f"by the server's own clock its events arrived {measured.delay * 1000:.0f} ms late or "
        f"more (median of {len(measured.delays)})",
        "small packets are kept for a moment in case more follow; with every event",
        hops.line("delayed", seen, hops.suspect(seen)),
        _name(seen),
    )


def headers_late(seen: Seen) -> Finding | None:
    """Every time; a server that has just started may be slow once."""
    answers = [one for one in (seen.look, seen.plain, seen.long) if one and one.answered]
    if not answers or not all(_comes_with_its_headers(answer) for answer in answers):
        return None
    return Finding(
        "headers-late",
        56,
        f"the headers came after {answers[-1].head_at:.1f} s, together with the first bytes",
        "until the headers are there a browser is connecting: no open event, and proxies give up "
        "on the answer after their own time limit",
        "send a comment line at once, a lone colon, before the first event; ssekit.Stream does",
    )


def _comes_with_its_headers(answer: Exchange) -> bool:
    """Whether the headers waited for the first bytes of the body."""
    late = answer.head_at is not None and answer.head_at >= LATE and bool(answer.pieces)
    return late and answer.pieces[0].at - (answer.head_at or 0) < TOGETHER and not _held(answer)


def _silences(answer: Exchange) -> list[float]:
    """The seconds between bytes, from the headers on and to the end or our leaving."""
    if answer.head_at is None:
        return []
    times = [answer.head_at, *(piece.at for piece in answer.pieces), answer.left_at]
    return [later - earlier for earlier, later in pairwise(times)]


def _cut_when_idle(seen: Seen) -> float | None:
    """The seconds of silence after which the stream was ended, if silence was the reason."""
    watched = seen.watched
    silences = _silences(watched)
    if not silences or not watched.over:
        return None
    # A stream that was ended right behind its last bytes ended by itself.
    enough = silences[-1] >= 0.9 * seen.heartbeat
    return silences[-1] if enough and silences[-1] >= 1.2 * max(silences[:-1], default=0) else None


def idle_cut(seen: Seen) -> Finding | None:
    silence = _cut_when_idle(seen)
    if silence is None:
        return None
    known = [who for limit, who in _IDLE_CUTS.items() if abs(silence - limit) <= 2]
    return Finding(
        "idle-cut",
        80,
        f"after {silence:.1f} s without a byte the stream was ended"
        + (f", which is the limit of {known[0]}" if known else ""),
        "each time a stream is quiet for so long all of its clients connect again, and what "
        "happens meanwhile is late",
        hops.line("idle-cut", seen, hops.suspect(seen)),
        _name(seen),
    )


def no_heartbeat(seen: Seen) -> Finding | None:
    longest = max(_silences(seen.watched), default=0.0)
    if longest < seen.heartbeat * 0.99:
        return None
    return Finding(
        "no-heartbeat",
        60,
        f"not one byte for {longest:.1f} s",
        "proxies, load balancers and mobile networks end connections that are silent, often "
        "after 60 s, and a server sees only by writing that its client has gone",
        "send a comment line, a lone colon, every 15 s; ssekit.Stream does: heartbeat=15",
    )


def cut(seen: Seen) -> Finding | None:
    watched = seen.watched
    if _cut_when_idle(seen) is not None or not watched.is_stream or watched.left != CUT:
        return None
    life = watched.left_at
    sync = 25 < life < 35
    return Finding(
        "cut",
        78,
        f"the stream was cut off after {life:.1f} s, without the end of its last chunk",
        "an event may be lost in the middle, and all clients come back at the same time",
        "gunicorn's sync worker is killed after 30 s: gunicorn -k gevent"
        if sync
        else "end streams between two events, when a deploy or a time limit ends them; ssekit "
        "does; and look at the time limits of every hop for an answer as a whole",
    )


def short(seen: Seen) -> Finding | None:
    watched = seen.watched
    ended = watched.over and watched.left != CUT
    if not watched.is_stream or not ended or watched.left_at >= SHORT:
        return None
    if _cut_when_idle(seen) is not None:
        return None
    return Finding(
        "short",
        48,
        f"the stream ended by itself after {watched.left_at:.1f} s",
        "every client connects again that often, which is polling with more work",
        "keep the stream open and send a heartbeat while there is nothing to say; to end it for "
        "good answer the next request with 204",
    )


def too_much(seen: Seen) -> Finding | None:
    if seen.watched.left != FULL:
        return None
    return Finding(
        "flood",
        44,
        f"{len(seen.watched.body)} bytes in {seen.watched.left_at:.1f} s",
        "a browser keeps up with some hundred events a second at most",
        "send less: only what changed, or a few times a second",
    )


def lingers(seen: Seen) -> Finding | None:
    measured = seen.probe
    if measured is None or measured.closed_after is None or not measured.still_open:
        return None
    return Finding(
        "lingers",
        72,
        f"{measured.closed_after:.1f} s after we had left, the server still had the stream open, "
        f"with a heartbeat every {measured.heartbeat:.0f} s",
        "every visitor who leaves keeps a connection and a source on the server, until there are "
        "too many",
        hops.line("lingers", seen, hops.suspect(seen)),
        _name(seen),
    )
