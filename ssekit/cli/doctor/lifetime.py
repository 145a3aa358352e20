"""Checks of how long a stream lives: what ends it, and whether a disconnect is noticed."""

from __future__ import annotations

from itertools import pairwise

from ssekit.cli.doctor.exchange import CUT, FULL, Exchange
from ssekit.cli.doctor.finding import Finding
from ssekit.cli.doctor.hops import blaming
from ssekit.cli.doctor.seen import Seen

SHORT = 20.0
"""A stream that ends by itself within this many seconds is a short one."""

_IDLE_CUTS = {
    30: "many load balancers and gunicorn's sync worker",
    55: "Heroku's router",
    60: "nginx's proxy_read_timeout, Apache's Timeout and AWS load balancers",
    100: "Cloudflare",
}


def _silences(answer: Exchange) -> list[float]:
    """The seconds between bytes, from the headers to the end or our disconnect."""
    if answer.head_at is None:
        return []
    times = [answer.head_at, *(arrival.at for arrival in answer.arrivals), answer.left_at]
    return [later - earlier for earlier, later in pairwise(times)]


def _cut_when_idle(seen: Seen) -> float | None:
    """The seconds of silence after which the stream was ended, if silence was the cause."""
    watched = seen.watched
    silences = _silences(watched)
    if not silences or not watched.over:
        return None
    # A stream that ended right after its last bytes ended by itself.
    enough = silences[-1] >= 0.9 * seen.heartbeat
    return silences[-1] if enough and silences[-1] >= 1.2 * max(silences[:-1], default=0) else None


def idle_cut(seen: Seen) -> Finding | None:
    silence = _cut_when_idle(seen)
    if silence is None:
        return None
    known = [who for limit, who in _IDLE_CUTS.items() if abs(silence - limit) <= 2]
    return blaming(
        "idle-cut",
        80,
        f"after {silence:.1f} s without a byte the stream was ended"
        + (f", which is the limit of {known[0]}" if known else ""),
        "whenever a stream is silent for that long, all of its clients have to reconnect, and "
        "events in the meantime are late",
        seen,
    )


def no_heartbeat(seen: Seen) -> Finding | None:
    longest = max(_silences(seen.watched), default=0.0)
    if longest < seen.heartbeat * 0.99:
        return None
    return Finding(
        "no-heartbeat",
        60,
        f"no byte for {longest:.1f} s",
        "proxies, load balancers and mobile networks end silent connections, often after 60 s, and "
        "many servers notice only by writing that a client has disconnected",
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
        f"the stream was cut off after {life:.1f} s, without a last chunk",
        "an event may be cut in the middle, and all clients reconnect at the same time",
        "gunicorn's sync worker is killed after 30 s: use gunicorn -k gevent"
        if sync
        else "end streams between two events at a deploy or a time limit, as ssekit does; and "
        "check every hop for a timeout of whole answers",
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
        "every client reconnects that often, which is polling with more work",
        "keep the stream open and send heartbeats while there are no events; to end it "
        "permanently, answer the next request with 204",
    )


def too_much(seen: Seen) -> Finding | None:
    if seen.watched.left != FULL:
        return None
    return Finding(
        "flood",
        44,
        f"{len(seen.watched.body)} bytes in {seen.watched.left_at:.1f} s",
        "browsers cannot keep up with more than a few hundred events a second",
        "send less: only changes, or only a few times a second",
    )


def lingers(seen: Seen) -> Finding | None:
    measured = seen.probe
    if measured is None or measured.closed_after is None or not measured.still_open:
        return None
    return blaming(
        "lingers",
        72,
        f"{measured.closed_after:.1f} s after we disconnected, the server still had the stream "
        f"open, with a heartbeat every {measured.heartbeat:.0f} s",
        "every visitor who disconnects still occupies a connection and a source on the server, "
        "until there are too many",
        seen,
    )
