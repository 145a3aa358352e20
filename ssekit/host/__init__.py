"""What the server and the process under a stream can do: see a disconnect, wait, wake, end.

A stream and a source ask this package, and never look at gevent, threads or signals themselves.
`ssekit.host.client` says what they ask; the other modules answer, each for one kind of host.
"""

from ssekit.host.client import (
    DISCONNECTED,
    ENDING,
    EXPIRED,
    Client,
    Ended,
    become,
    current,
    failed,
)
from ssekit.host.patched import begin, begin_natively, in_event_loop, let_others_run, under_gevent
from ssekit.host.which import client_of, prepare

__all__ = [
    "DISCONNECTED",
    "ENDING",
    "EXPIRED",
    "Client",
    "Ended",
    "become",
    "begin",
    "begin_natively",
    "client_of",
    "current",
    "failed",
    "in_event_loop",
    "let_others_run",
    "prepare",
    "under_gevent",
]
