"""The table of checks, and the judgement: pure functions of what was seen."""

from __future__ import annotations

from collections.abc import Callable

from ssekit.cli.doctor import answer, cors, delivery, format, hops, lifetime  # noqa: A004
from ssekit.cli.doctor.finding import Finding
from ssekit.cli.doctor.seen import Seen

CHECKS: tuple[Callable[[Seen], Finding | None], ...] = (
    answer.unreachable,
    answer.endless_redirects,
    answer.status,
    answer.media_type,
    delivery.compressed,
    delivery.buffered,
    answer.from_a_cache,
    cors.refused,
    cors.reflected,
    lifetime.idle_cut,
    lifetime.cut,
    format.resuming,
    format.breaks_the_format,
    lifetime.lingers,
    delivery.delayed,
    lifetime.no_heartbeat,
    format.same_ids,
    delivery.headers_late,
    answer.no_http2,
    answer.head_hangs,
    answer.content_length,
    lifetime.short,
    answer.cacheable,
    lifetime.too_much,
    answer.charset,
    answer.connection_header,
    answer.redirect,
    cors.varies,
    cors.preflight,
    answer.post,
    format.no_ids,
    format.no_retry,
)

EXPLAINS = {
    "compressed": {"headers-late", "short", "cut", "no-heartbeat", "idle-cut", "resuming"},
    "buffered": {
        "headers-late",
        "short",
        "cut",
        "no-heartbeat",
        "idle-cut",
        "resuming",
        "lingers",
        "delayed",
    },
    "idle-cut": {"no-heartbeat", "short"},
}
"""What may be a mere consequence of a finding, and is then not reported."""

COMPARED = {
    "unreachable",
    "status",
    "type",
    "redirect",
    "compressed",
    "buffered",
    "headers-late",
    "head",
    "content-length",
    "cacheable",
    "charset",
    "connection",
}
"""What the short look at the upstream would have shown too."""
MEASURED = {"delayed", "lingers", "resuming"}
"""What the upstream's probe would have shown too."""


def judge(seen: Seen) -> list[Finding]:
    """Return the findings, the most harmful first."""
    found = [finding for check in CHECKS if (finding := check(seen)) is not None]
    explained = {name for finding in found for name in EXPLAINS.get(finding.name, ())}
    found = [finding for finding in found if finding.name not in explained]
    return sorted(found, key=lambda finding: -finding.harm)


def untested(seen: Seen) -> list[str]:
    """Say what could not be judged, and what to do about that."""
    if not any(one.is_stream for one in (seen.look, seen.watched)):
        return []
    notes = []
    watched = seen.watched
    listened = watched.left_at - (watched.head_at or 0)
    if not watched.over and listened < seen.heartbeat:
        notes.append(
            f"whether a heartbeat is sent every {seen.heartbeat:.0f} s: it listened for "
            f"{listened:.0f} s; use --seconds {seen.heartbeat + 20:.0f} or more"
        )
    if not watched.over and listened < 100 and seen.heartbeat >= 30:
        notes.append(
            "whether a silent stream is cut after 60 s, or 100 s: use --seconds 90, or 140"
        )
    if seen.head is None or (not seen.head.answered and answer.head_hangs(seen) is None):
        notes.append("HEAD, POST and other requests, because time ran out: use --seconds")
    if seen.resumed is None:
        notes.append("resuming, because too few events with ids arrived in the first seconds")
    if seen.probe is None:
        notes.append(
            "delays and connections that stay open, because there is no ssekit probe beside the "
            "stream (ssekit.probe.Probe; --probe URL)"
        )
    if seen.upstream is not None and not seen.upstream.look.is_stream:
        asked = seen.upstream.look
        why = asked.failure or "it did not answer"
        if asked.answered:
            why = f"its status is {asked.status}, its type {asked.media_type or 'missing'}"
        notes.append(f"the comparison with {asked.url}: {why}")
    if not seen.origin:
        notes.append("CORS: use --origin with the page's origin")
    return notes


def path(seen: Seen) -> list[hops.Hop]:
    """Return the programs on the path that were recognized, the outermost first."""
    return list(hops.hops(seen))


def blame(seen: Seen) -> dict[str, str]:
    """Where each finding comes from, by its name, if the upstream was examined too.

    The upstream is looked at for a short time only; findings that this would not have shown are
    left out.
    """
    if seen.upstream is None:
        return {}
    behind = {finding.name for finding in judge(seen.upstream)}
    shown = COMPARED | (MEASURED if seen.upstream.probe is not None else set())
    where = {}
    for finding in judge(seen):
        if finding.name in behind:
            where[finding.name] = "upstream"
        elif finding.name in shown:
            where[finding.name] = "in front of upstream"
    return where
