"""Have gevent patch the process before or after psycopg is imported, and ask a log where it stands.

python -m tests.apps.programs.patched_late early|late URL
"""

from __future__ import annotations

import sys

import gevent.monkey

if sys.argv[1] == "late":
    import psycopg  # noqa: F401
gevent.monkey.patch_all()

from ssekit.brokers import connect

print(connect(sys.argv[2]).tip())
