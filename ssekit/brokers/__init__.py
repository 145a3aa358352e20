"""Logs of events: one contract (`ssekit.brokers.contract`), and a package or module for each kind.

A hub calls a broker; a broker knows no hub, no stream and no other broker.
"""

from ssekit.brokers.codec import id_of, parse_id
from ssekit.brokers.contract import (
    INTERNAL,
    Broker,
    Entry,
    Held,
    HistoryLost,
    LeaseEnded,
    Opening,
    Retention,
    Status,
)
from ssekit.brokers.urls import connect

__all__ = [
    "INTERNAL",
    "Broker",
    "Entry",
    "Held",
    "HistoryLost",
    "LeaseEnded",
    "Opening",
    "Retention",
    "Status",
    "connect",
    "id_of",
    "parse_id",
]
