"""What is going on in a hub, for Prometheus and for load balancers: two small WSGI applications.

``Metrics(hub)`` writes `Hub.stats` in Prometheus' format, by the ``prometheus_client`` package
(``pip install 'ssekit[metrics]'``).  Whichever worker answers, the numbers are those of all.
``Health(hub)`` answers ``/healthz``, and needs no other package.
"""

from __future__ import annotations

import hmac
import json
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from ssekit import host
from ssekit.errors import HubClosed, SSEError
from ssekit.hub import Hub
from ssekit.hub.stats import Histogram, Numbers, Stats
from ssekit.stream.response import plain_answer

if TYPE_CHECKING:
    from prometheus_client.core import HistogramMetricFamily, Metric

__all__ = ["Health", "Metrics"]

PATIENCE = 1.0
"""Seconds that a health check waits for the log."""
GOOD_FOR = 1.0
"""Seconds for which its answer is good: many load balancers ask, and the log is asked once."""

StartResponse = Callable[..., Any]


class Metrics:
    """A WSGI application that answers a scrape of Prometheus with the numbers of a hub.

    ``token``: what the scraper has to send as ``Authorization: Bearer``; without one, anybody who
    reaches the address reads the numbers.
    ``channels``: the channels that get numbers of their own.  No other channel, and nothing that a
    client sends, ever becomes a label.

    Raises ImportError if ``prometheus_client`` is not installed, TypeError if ``channels`` is a str
    and ValueError for an empty token.
    """

    def __init__(
        self, hub: Hub, token: str | None = None, *, channels: Collection[str] = ()
    ) -> None:
        try:
            import prometheus_client  # noqa: F401 - to fail now, and not at the first scrape
        except ImportError as error:
            raise ImportError(
                "Metrics needs prometheus_client: pip install 'ssekit[metrics]'",
                name="prometheus_client",
            ) from error
        if isinstance(channels, str):
            raise TypeError(f"channels is a list of channels, not the str {channels!r}")
        if token is not None and not token.strip():
            raise ValueError("the token is empty: everybody would know it; None is for no token")
        self._hub = hub
        self._token = None if token is None else token.encode()
        hub.counts.at_once = True
        hub.counts.watch(channels)

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request (PEP 3333)."""
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import choose_encoder

        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            allow = [("Allow", "GET, HEAD")]
            answer = plain_answer("405 Method Not Allowed", "Metrics are read with GET.", allow)
            return answer.give(environ, start_response)
        if not self._admits(environ):
            ask = [("WWW-Authenticate", "Bearer")]
            answer = plain_answer("401 Unauthorized", "These metrics need their token.", ask)
            return answer.give(environ, start_response)
        registry = CollectorRegistry()
        registry.register(_Collected(self._hub.stats()))
        encode, kind = choose_encoder(environ.get("HTTP_ACCEPT", ""))
        body = encode(registry)
        headers = [("Content-Type", kind), ("Content-Length", str(len(body)))]
        start_response("200 OK", [*headers, ("Cache-Control", "no-store")])
        return [body] if environ["REQUEST_METHOD"] == "GET" else []

    def _admits(self, environ: Mapping[str, Any]) -> bool:
        if self._token is None:
            return True
        scheme, _, given = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(
            given.strip().encode("latin-1", "replace"), self._token
        )


class _Collected:
    """The metrics of one scrape, as `prometheus_client` asks for them."""

    def __init__(self, stats: Stats) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        server = self._stats.server
        for name, text, value in _gauges(server, len(self._stats.workers), self._stats.end):
            yield GaugeMetricFamily(name, text, value=value)
        for name, text, count in _counters(server):
            yield CounterMetricFamily(name, text, value=count)
        for name, text, label, by in (
            ("ssekit_streams_ended", "Streams that have ended.", "reason", server.ended),
            ("ssekit_streams_rejected", "Clients rejected.", "cause", server.rejected),
        ):
            family = CounterMetricFamily(name, text, labels=[label])
            for reason, count in by.items():
                family.add_metric([reason], count)
            yield family
        for name, text in (
            ("published", "Events published in a channel that was named."),
            ("events", "Events of a channel that was named, delivered to caught-up streams."),
        ):
            family = CounterMetricFamily(f"ssekit_channel_{name}", text, labels=["channel"])
            for channel, numbers in self._stats.channels.items():
                family.add_metric([channel], numbers[name])
            yield family
        yield _histogram("ssekit_publish_seconds", "Time of a publish.", server.publish)
        yield _histogram(
            "ssekit_delay_seconds",
            "From when an event was stored, by the log's clock, to when it was sent.",
            server.delay,
        )


def _gauges(server: Numbers, workers: int, end: str | None) -> Iterator[tuple[str, str, float]]:
    yield "ssekit_workers", "Processes that have streams or subscriptions.", workers
    yield "ssekit_workers_away", "Of them, those that cannot reach the log.", server.away
    yield "ssekit_log_up", "Whether the log answered this scrape.", end is not None
    yield "ssekit_streams", "Open streams.", server.streams
    yield "ssekit_streams_taken_over", "Of them, those without a greenlet.", server.taken_over
    yield "ssekit_streams_lagging", "Of those, the ones that lag.", server.lagging
    yield "ssekit_members", "Members present.", server.members
    yield "ssekit_entries", "Entries of the log in memory.", server.entries
    yield "ssekit_entry_bytes", "Bytes of these entries.", server.entry_bytes
    if server.behind_events is not None:
        text = "Entries that the slowest worker has yet to read."
        yield "ssekit_behind_events", text, server.behind_events
    if server.behind_seconds is not None:
        text = "How long the oldest of them has been in the log."
        yield "ssekit_behind_seconds", text, server.behind_seconds


def _counters(server: Numbers) -> Iterator[tuple[str, str, int]]:
    yield "ssekit_streams_opened", "Streams opened.", server.opened
    yield "ssekit_events", "Events delivered, each stream counted.", server.events
    yield "ssekit_bytes", "Bytes delivered, heartbeats included.", server.bytes
    yield "ssekit_published", "Events published.", server.published
    yield "ssekit_publish_refused", "Events that were invalid.", server.refused
    yield "ssekit_publish_failed", "Events that the log did not take.", server.failed
    yield "ssekit_resets", "Clients told that history was lost.", server.resets
    yield "ssekit_authorized", "Clients that an endpoint admitted.", server.authorized
    yield "ssekit_unauthorized", "Clients that an endpoint refused.", server.unauthorized
    yield "ssekit_outages", "Outages of the log, each worker counted.", server.outages


def _histogram(name: str, text: str, found: Histogram) -> HistogramMetricFamily:
    from prometheus_client.core import HistogramMetricFamily

    bounds = [*map(str, found.bounds), "+Inf"]
    buckets = list(zip(bounds, accumulate(found.counts), strict=True))
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=found.sum)


class Health:
    """A WSGI application that says whether this worker serves, and whether its log can be reached.

    It answers 200 as long as the worker answers, also while the log is away: the open streams go
    on, and a load balancer that took the worker out would end them.  The body says which:
    ``{"status": "ok", "log": "ok"}`` or ``"away"``.  With ``?log`` the answer is 503 while the log
    is away, for alerts and for checks before a deploy.  After `Hub.close` it is always 503.  Raises
    nothing.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._lock = threading.Lock()
        self._asked: _Asked | None = None

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request (PEP 3333)."""
        log = self._log()
        wanted = environ.get("QUERY_STRING", "").split("&")
        ok = log == "ok" or (log == "away" and "log" not in {field[:3] for field in wanted})
        body = json.dumps({"status": "ok" if ok else "unavailable", "log": log}).encode() + b"\n"
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        status = "200 OK" if ok else "503 Service Unavailable"
        start_response(status, [*headers, ("Cache-Control", "no-store")])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _log(self) -> str:
        """Return "ok", "away" or "closed".  A log that does not answer holds one thread at most."""
        with self._lock:
            asked = self._asked
            if asked is None or (asked.done.is_set() and time.monotonic() - asked.at > GOOD_FOR):
                asked = self._asked = _Asked(self._hub)
        asked.done.wait(max(asked.at + PATIENCE - time.monotonic(), 0))
        return asked.found


class _Asked:
    """One question to the log, which may take longer than anybody waits."""

    def __init__(self, hub: Hub) -> None:
        self.at = time.monotonic()
        self.done = threading.Event()
        self.found = "away"
        host.begin(lambda: self._ask(hub), "ssekit-health")

    def _ask(self, hub: Hub) -> None:
        try:
            hub.position()
            self.found = "ok"
        except HubClosed:
            self.found = "closed"
        except SSEError:
            self.found = "away"
        finally:
            self.done.set()
