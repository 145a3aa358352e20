"""Logs of events: one contract (`ssekit.brokers.contract`), and a package or module for each kind.

A hub calls a broker; a broker knows no hub, no stream and no other broker.
"""

from ssekit.brokers.codec import id_of, parse_id
from ssekit.brokers.contract import Broker, Entry, HistoryLost
from ssekit.brokers.urls import connect

__all__ = ["Broker", "Entry", "HistoryLost", "connect", "id_of", "parse_id"]
